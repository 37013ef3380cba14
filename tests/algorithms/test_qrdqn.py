import pytest
import torch
from by_hand import one_transition
from gymnasium import spaces

from shoal import runtime
from shoal.algorithms import QRDQN, QRDQNConfig
from shoal.algorithms.qrdqn import qrdqn_loss, quantile_huber
from shoal.rl import ModelSpec, build_model
from shoal.runtime import InputError


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


class Table:
    """A network that gives the quantiles of a table, [states, actions, N]: an observation is the number of its row."""

    def __init__(self, rows):
        self.table = torch.tensor(rows, requires_grad=True)

    def quantiles(self, observations):
        return self.table[observations.long()]

    def means(self, quantiles, observations):
        return quantiles.mean(-1)

    def outputs(self, observations):
        return self.quantiles(observations).mean(-1)


ONLINE = [[[9.0, 9.0], [0.0, 1.0]], [[5.0, 5.0], [4.0, 4.0]]]  # prefers action 0 in state 1
TARGET = [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 6.0], [2.0, 8.0]]]  # where action 1 is worth more


def test_every_quantile_against_every_sample_by_hand():
    # τ̂ = ¼, ¾; u = target − prediction: of 0: 0.5, −2; of 1: −0.5, −3. L: 0.125, 1.5; 0.125, 2.5
    # |τ̂ − 1{u < 0}|: ¼, ¾; ¼, ¼. Mean over targets: (0.03125 + 1.125) / 2, (0.03125 + 0.625) / 2; summed
    losses = quantile_huber(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, -2.0]]))
    assert losses.tolist() == pytest.approx([(0.03125 + 1.125) / 2 + (0.03125 + 0.625) / 2])


@pytest.mark.parametrize(
    ("error", "gradient"), [(0.5, -0.125), (1.0, -0.25), (3.0, -0.25), (-0.5, 0.375), (-1.0, 0.75), (-3.0, 0.75)]
)
def test_the_gradient_is_larger_on_the_side_of_the_quantile(error, gradient):
    predictions = torch.tensor([[0.0, error]], requires_grad=True)  # the second has no error
    quantile_huber(predictions, torch.tensor([[error]])).sum().backward()
    assert predictions.grad[0, 0].item() == pytest.approx(gradient)
    assert predictions.grad[0, 1].item() == 0


def test_the_loss_is_smallest_at_the_quantiles():
    # of 0, 100, 200, 300 a quarter lies below 50, three quarters below 250: τ̂ = ¼, ¾ of N = 2
    for predictions, slopes in (([50.0, 250.0], [0, 0]), ([150.0, 150.0], [0.25, -0.25])):
        given = torch.tensor([predictions], requires_grad=True)
        quantile_huber(given, torch.tensor([[0.0, 100.0, 200.0, 300.0]])).sum().backward()
        assert given.grad[0].tolist() == slopes


def test_the_target_is_the_distribution_of_the_best_mean_of_the_target_network():
    model = Table(ONLINE)
    loss, errors, q = qrdqn_loss(model, Table(TARGET), one_transition(), QRDQNConfig())
    targets = torch.tensor([[1 + 0.5 * 2, 1 + 0.5 * 8]])  # action 1: mean 5, not action 0: mean 3
    assert loss.item() == pytest.approx(quantile_huber(torch.tensor([[0.0, 1.0]]), targets).item())
    assert (q.item(), errors.item()) == (0.5, 3.5 - 0.5)
    loss.backward()
    taken = model.table.grad.clone()
    taken[0, 1] = 0
    assert (taken == 0).all()  # the taken action alone; no gradient through the target
    assert (model.table.grad[0, 1] != 0).all()


def test_double_lets_the_weights_choose_and_the_target_network_value():
    _, errors, q = qrdqn_loss(Table(ONLINE), Table(TARGET), one_transition(), QRDQNConfig(double_q=True))
    assert errors.item() == 1 + 0.5 * 3 - q.item()


def test_where_an_episode_terminated_nothing_follows():
    _, errors, _ = qrdqn_loss(Table(ONLINE), Table(TARGET), one_transition(discounts=[0.0]), QRDQNConfig())
    assert errors.item() == 1 - 0.5


def test_importance_weights_and_the_mean_over_rows():
    one = qrdqn_loss(Table(ONLINE), Table(TARGET), one_transition(), QRDQNConfig())[0].item()
    rows = {name: torch.cat([value, value]) for name, value in one_transition().items()}
    rows["weights"] = torch.tensor([0.5, 0.25])
    assert qrdqn_loss(Table(ONLINE), Table(TARGET), rows, QRDQNConfig())[0].item() == pytest.approx(one * 0.75 / 2)


def build(**policy_kwargs):
    spec = ModelSpec("quantile_q_network", spaces.Box(-1, 1, (2,)), spaces.Discrete(3), policy_kwargs)
    return build_model(spec)


def test_values_are_the_means_of_quantiles():
    model = build(n_quantiles=5, net_arch=[4])
    rows = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    assert model.quantiles(rows).shape == (7, 3, 5)
    torch.testing.assert_close(model.outputs(rows), model.quantiles(rows).mean(-1))
    torch.testing.assert_close(model.choose(model.outputs(rows), None), model.quantiles(rows).mean(-1).argmax(-1))


def test_dueling_is_of_each_quantile():
    model = build(n_quantiles=2, net_arch=[], dueling=True)
    with torch.no_grad():
        model.flat.zero_()
        model.q.layers[-1].bias.copy_(torch.tensor([1.0, 10.0, 2.0, 20.0, 6.0, 60.0]))
        model.v.layers[-1].bias.copy_(torch.tensor([100.0, 200.0]))
    found = model.quantiles(torch.zeros(1, 2))[0]
    assert found.tolist() == [[98, 180], [99, 190], [103, 230]]  # means over the actions: 3 and 30


def test_a_forbidden_action_is_not_the_best_of_the_target():
    # the distribution of the forbidden action has the larger mean, 9; of those allowed action 2 has, 4
    space = spaces.Dict({"action_mask": spaces.MultiBinary(3), "x": spaces.Box(-1, 1, (1,))})
    spec = ModelSpec("quantile_q_network", space, spaces.Discrete(3), {"n_quantiles": 2, "net_arch": []})
    model = build_model(spec)
    with torch.no_grad():
        model.flat.zero_()
        model.q.layers[-1].bias.copy_(torch.tensor([1.0, 1.0, 9.0, 9.0, 2.0, 6.0]))
    rows = {"action_mask": torch.tensor([[True, False, True]]), "x": torch.zeros(1, 1)}
    given = one_transition(actions=[0]) | {"observations": rows, "next_observations": rows}
    for double in (False, True):
        _, errors, q = qrdqn_loss(model, model, given, QRDQNConfig(double_q=double))
        assert (q.item(), errors.item()) == (1, 1 + 0.5 * 4 - 1)
    assert model.choose(model.outputs(rows), None).tolist() == [2]


def test_names_and_defaults_are_those_of_sb3_contrib():
    config = QRDQNConfig()
    assert (config.learning_rate, config.batch_size, config.train_freq) == (5e-5, 32, 4)
    assert (config.exploration_fraction, config.exploration_final_eps, config.max_grad_norm) == (0.005, 0.01, None)
    assert build().n_quantiles == 200
    with pytest.raises(InputError, match=r"policy_kwargs\['n_quantiles'\] is 0, but must be a whole number"):
        build(n_quantiles=0)


def test_a_training_changes_the_weights():
    with QRDQN(
        "CartPole-v1", n_envs=2, learning_starts=32, batch_size=16, seed=1, policy_kwargs={"n_quantiles": 7}
    ) as qrdqn:
        before = qrdqn.policy.model.flat.clone()
        result = qrdqn.train(128)
        assert qrdqn.policy.model.n_quantiles == 7
        assert result.timesteps == 128
        assert (qrdqn.policy.model.flat != before).any()
