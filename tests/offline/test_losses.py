"""The mathematics of MARWIL, IQL, CQL and TD3+BC, by numbers worked by hand."""

import math
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from datasets import episode, write_dataset
from gymnasium import spaces

from shoal import BC, CQL, IQL, MARWIL, TD3BC, runtime
from shoal.algorithms.cql import CQLConfig, continuous_penalty, discrete_penalty, soft_maximum
from shoal.algorithms.iql import IQLConfig, critic_loss, expectile_loss, policy_loss, value_loss
from shoal.algorithms.marwil import MARWILConfig, advantage_weights, marwil_loss
from shoal.algorithms.td3_bc import actor_loss, value_weight
from shoal.rl import ModelSpec, build_model
from shoal.rl.learn.learner import Learner
from shoal.rl.models.distributions import Categorical, DiagonalGaussian

pytestmark = pytest.mark.usefixtures("datasets")

SMALL = {"gradient_steps": 20, "batch_size": 16, "policy_kwargs": {"net_arch": [8]}}
CART = gymnasium.make("CartPole-v1")
PENDULUM = gymnasium.make("Pendulum-v1")


def tensors(**columns):
    return {name: torch.tensor(values) for name, values in columns.items()}


class Table:
    """Values and logits of state 0 and 1."""

    def __init__(self, values, logits):
        self.table, self.logits = torch.tensor(values, requires_grad=True), torch.tensor(logits, requires_grad=True)

    def values(self, rows):
        return self.table[rows]

    state_values = values

    def outputs(self, rows):
        return self.logits[rows]

    def distribution(self, outputs):
        return Categorical(outputs)


# ---- MARWIL


def test_marwil_weighs_by_advantages_divided_by_their_running_root():
    """V = (1, 4), both actions equally probable. First row: the episode terminated, R = 3, Â = 3 − 1 = 2. Second: cut
    off after two steps with γ = ½ in state 1, R = 1 + ¼ · 4 = 2, Â = 2 − 4 = −2. Mean Â² = 4; with rate ½, c² goes from
    12 to 8, c = √8. β = √8: weights e^2 and e^−2."""
    model = Table([1.0, 4.0], [[0.0, 0.0], [0.0, 0.0]])
    minibatch = tensors(
        observations=[0, 1], actions=[0, 1], returns=[3.0, 1.0], end_discounts=[0.0, 0.25], end_observations=[0, 1]
    )
    config = MARWILConfig(beta=8**0.5, moving_average_sqd_adv_norm_update_rate=0.5, vf_coef=0.1)
    judged, c_squared = advantage_weights(model, minibatch, config, 12.0)
    loss, metrics = marwil_loss(model, minibatch | judged, config)
    assert c_squared == pytest.approx(8)
    assert metrics["train/weight"].item() == pytest.approx((math.e**2 + math.e**-2) / 2)
    policy = math.log(2) * (math.e**2 + math.e**-2) / 2
    assert loss.item() == pytest.approx(policy + 0.1 * 0.5 * (4 + 4) / 2)
    loss.backward()
    # d/dV of 0.1 · ½ · mean (R − V)²; none through the weights, the advantage or the value after the end.
    assert model.table.grad.tolist() == pytest.approx([0.1 * -2 / 2, 0.1 * 2 / 2])


@pytest.fixture
def pushes():
    """Episodes of CartPole's spaces, some cut off, with rewards that differ."""
    runtime.init(engine="serial")
    space = CART.observation_space, CART.action_space
    made = []
    for seed in range(4):
        own = episode(*space, 10, seed=seed, terminated=seed % 2 == 0, rewards=np.arange(10.0) % (seed + 2))
        own.observations[:] = np.random.default_rng(seed).normal(size=(11, 4)).astype(np.float32)
        made.append(own)
    return write_dataset("cart/pushes-v0", made, *space)


@pytest.fixture
def swings():
    runtime.init(engine="serial")
    space = PENDULUM.observation_space, PENDULUM.action_space
    made = [episode(*space, 10, seed=seed, terminated=False, rewards=-np.arange(10.0)) for seed in range(4)]
    return write_dataset("swing/random-v0", made, *space, env="Pendulum-v1")


def test_marwil_without_beta_is_behavioural_cloning_bit_for_bit(pushes):
    hashes = set()
    for algorithm, more in ((BC, {}), (MARWIL, {"beta": 0}), (MARWIL, {"beta": 1.0})):
        with algorithm(dataset=pushes, **SMALL, **more) as training:
            hashes.add(training.train(60).weights_sha256)
    assert len(hashes) == 2


def test_the_running_square_is_saved(pushes, tmp_path):
    settings = SMALL | {"moving_average_sqd_adv_norm_update_rate": 0.1, "beta": 0.5}
    with MARWIL(dataset=pushes, **settings) as straight:
        wanted = straight.train(40).weights_sha256
    with MARWIL(dataset=pushes, **settings) as half:
        half.train(20)
        half.save(tmp_path)
        own, _ = half.actors.snapshot(half._start())
        assert own["numbers"]["squared_advantage"] != 100
    with MARWIL.load(tmp_path) as rest:
        assert rest.train(20).weights_sha256 == wanted


# ---- IQL


def test_expectiles():
    """τ = ½: half the mean square. τ = 0.9 of u = (2, −1): (0.9 · 4 + 0.1 · 1) / 2. The v of 0 and 1 that has the least
    loss is ½ for τ = ½, and τ in general."""
    differences = torch.tensor([2.0, -1.0])
    assert expectile_loss(differences, 0.5).item() == pytest.approx(0.5 * 2.5)
    assert expectile_loss(differences, 0.9).item() == pytest.approx(1.85)
    candidates = torch.linspace(0, 1, 101)
    for expectile in (0.5, 0.8):
        losses = [expectile_loss(torch.tensor([0.0, 1.0]) - value, expectile).item() for value in candidates]
        assert candidates[int(np.argmin(losses))].item() == pytest.approx(expectile)


def test_iql_by_hand():
    """V = (1, 3). Critics' targets say 2 and 2 of the dataset's actions: u = (1, −1), advantages the same. τ = 0.7:
    L_V = (0.7 + 0.3) / 2. β = 3: weights e^3 and e^−3; β = 10: 100, where it is capped."""
    model = Table([1.0, 3.0], [[0.0, 0.0], [0.0, math.log(3)]])
    minibatch = tensors(observations=[0, 1], actions=[0, 1])
    loss, values = value_loss(model, torch.tensor([2.0, 2.0]), minibatch, IQLConfig(expectile=0.7))
    assert loss.item() == pytest.approx(0.5)
    assert values.tolist() == [1, 3]
    loss.backward()
    assert model.table.grad.tolist() == pytest.approx([-2 * 0.7 / 2, 2 * 0.3 / 2])
    advantages, likelihoods = torch.tensor([1.0, -1.0]), (math.log(0.5), math.log(0.75))
    found = policy_loss(model, advantages, minibatch, IQLConfig(beta=3))
    assert found.item() == pytest.approx(-(math.e**3 * likelihoods[0] + math.e**-3 * likelihoods[1]) / 2)
    capped = policy_loss(model, advantages, minibatch, IQLConfig(beta=10))
    assert capped.item() == pytest.approx(-(100 * likelihoods[0] + math.e**-10 * likelihoods[1]) / 2)


def test_iqls_critics_bootstrap_with_v_unless_the_step_terminated():
    """y = 1 + ½ · V(1) = 2½ where it goes on (also where it was cut off), 1 where it terminated. Q = (2, 2), (1, 1)."""
    model = Table([1.0, 3.0], [[0.0, 0.0]] * 2)
    q = torch.tensor([[2.0, 2.0], [1.0, 1.0]], requires_grad=True)
    model.action_values = lambda rows, actions: q
    minibatch = tensors(
        observations=[0, 0], actions=[0, 1], rewards=[1.0, 1.0], next_observations=[1, 1], discounts=[0.5, 0.0]
    )
    loss = critic_loss(model, minibatch)
    assert loss.item() == pytest.approx(((0.25 + 1) + (2.25 + 0)) / 2)
    loss.backward()
    assert model.table.grad is None


@pytest.mark.parametrize(
    ("action_space", "kind"), [(spaces.Discrete(3), "categorical"), (PENDULUM.action_space, "gaussian")]
)
def test_the_parts_of_iqls_model(action_space, kind):
    """Nothing but its own part changes with each loss, and acting needs the actor alone."""
    model = build_model(ModelSpec(f"{kind}_actor_qv", spaces.Discrete(2), action_space, {"net_arch": [4]}))
    rows = model.encode(np.array([0, 1]))
    actions = torch.tensor([0, 2]) if kind == "categorical" else torch.tensor([[0.5], [-1.0]])
    assert model.action_values(rows, actions).shape == (2, 2)
    assert model.state_values(rows).shape == (2,)
    assert all(name.startswith("actor") for name in model.layout.shapes)
    if kind == "gaussian":
        with torch.no_grad():
            model.actor.log_std.fill_(-100.0)
            outputs = model.outputs(rows)
        normal = DiagonalGaussian(outputs.tanh(), torch.tensor([-5.0]))
        found = model.distribution(outputs).log_prob(actions)
        assert found.tolist() == normal.log_prob(actions).tolist()
        assert np.allclose(model.choose(outputs, None), outputs.tanh())


# ---- CQL


def test_the_soft_maximum_is_that_of_the_integral():
    """T log ∫ exp(Q / T) da over [−1, 1]² for Q = a₁ + 2 a₂: ∫ exp(c a) da = 2 sinh(c) / c each. From uniform actions
    of log-density −2 log 2, and from normal ones of their own density, at two temperatures."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(400_000, 2, generator=generator) * 2 - 1
    for temperature in (1.0, 0.5):
        exact = temperature * sum(math.log(2 * math.sinh(c / temperature) / (c / temperature)) for c in (1.0, 2.0))
        q = uniform[:, 0] + 2 * uniform[:, 1]
        densities = torch.full((400_000,), -2 * math.log(2))
        assert soft_maximum(q, densities, temperature).item() == pytest.approx(exact, abs=0.01)
    # All values equal c and two actions of density ¼: log(mean of e^c · 4) = c + log 4.
    found = soft_maximum(torch.tensor([3.0, 3.0]), torch.tensor([math.log(0.25)] * 2), 1.0)
    assert found.item() == pytest.approx(3 + math.log(4))


class Critics:
    """Q_1 = a, Q_2 = −2 a of one-dimensional actions; the policy draws its noise, of density 1."""

    def __init__(self):
        self.asked = []

    def repeat(self, rows, times):
        return rows.repeat_interleave(times, 0)

    def uniform(self, rows, noise):
        return noise

    def outputs(self, rows):
        return rows

    def distribution(self, outputs):
        return SimpleNamespace(sample_with_log_prob=lambda noise: (noise + outputs[:, None], torch.zeros(len(noise))))

    def values(self, rows, actions):
        self.asked.append((rows.tolist(), actions[:, 0].tolist()))
        return torch.stack([actions[:, 0], -2 * actions[:, 0]])


def test_cqls_penalty_by_hand():
    """One transition from state 0 to state 100, one action of each kind: uniform 1 (density ½), the policy's here 2,
    its next one 3 + 100; all valued in state 0. For Q_1: log((2 e^1 + e^2 + e^103) / 3) − Q_1(s, a)."""
    critics = Critics()
    minibatch = tensors(observations=[0.0], next_observations=[100.0], actions=[[0.25]])
    noise = torch.tensor([[[1.0], [2.0], [3.0]]])
    found = continuous_penalty(critics, minibatch, CQLConfig(num_actions=1), noise)
    assert critics.asked == [([0, 0, 0], [1, 2, 103]), ([0], [0.25])]
    first = 103 - math.log(3) + math.log1p(2 * math.exp(1 - 103) + math.exp(2 - 103)) - 0.25
    second = math.log((2 * math.exp(-2) + math.exp(-4) + math.exp(-206)) / 3) + 0.5
    assert found.item() == pytest.approx(first + second, rel=1e-5)


def test_discrete_penalty():
    """Q = (0, log 3): log 4 − Q(a); of one action, whatever its value, 0; never below; forbidden ones do not count."""
    q = torch.tensor([[0.0, math.log(3)]])
    assert discrete_penalty(q, torch.tensor([0]), 1.0).item() == pytest.approx(math.log(4))
    assert discrete_penalty(q, torch.tensor([1]), 1.0).item() == pytest.approx(math.log(4 / 3))
    assert discrete_penalty(q, torch.tensor([1]), 0.5).item() == pytest.approx(0.5 * math.log(10 / 9))
    assert discrete_penalty(torch.tensor([[7.0], [-3.0]]), torch.tensor([0, 0]), 2.0).item() == pytest.approx(
        0, abs=1e-6
    )
    many = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    assert all(discrete_penalty(many[k : k + 1], torch.tensor([k % 4]), 1.0) >= 0 for k in range(50))
    lowest = torch.finfo(torch.float32).min
    assert discrete_penalty(torch.tensor([[2.0, lowest]]), torch.tensor([0]), 0.5).item() == pytest.approx(0)


# ---- TD3+BC


def test_td3_bcs_actor_by_hand():
    """μ = (½, −½), Q_1 = 4 μ: |Q| = 2, so λ = α / 2. Dataset (1, −½): imitation (¼ + 0) / 2."""
    mu = torch.tensor([[0.5], [-0.5]], requires_grad=True)
    model = SimpleNamespace(
        outputs=lambda rows: mu,
        choose=lambda outputs, noise: outputs,
        first_value=lambda rows, actions: 4 * actions[:, 0],
    )
    minibatch = tensors(observations=[0, 1], actions=[[1.0], [-0.5]])
    loss = actor_loss(model, minibatch, value_weight(model, minibatch, alpha=2.5))
    assert loss.item() == pytest.approx(0.125 - 1.25 * 0)
    loss.backward()
    # −λ · 4 / 2 from the values; 2 (μ − a) / 2 from the imitation; none through λ.
    assert mu.grad[:, 0].tolist() == pytest.approx([-2.5 - 0.5, -2.5 + 0])


# ---- all of them


SLOW = pytest.mark.slow


@pytest.mark.parametrize("algorithm", [pytest.param(MARWIL, marks=SLOW), IQL, pytest.param(CQL, marks=SLOW)])
def test_choices_are_learned_from_and_go_on_bit_for_bit(algorithm, pushes, tmp_path):
    goes_on_bit_for_bit(algorithm, pushes, tmp_path)


@pytest.mark.parametrize("algorithm", [pytest.param(IQL, marks=SLOW), CQL, TD3BC])
def test_numbers_are_learned_from_and_go_on_bit_for_bit(algorithm, swings, tmp_path):
    goes_on_bit_for_bit(algorithm, swings, tmp_path)


def goes_on_bit_for_bit(algorithm, dataset, folder):
    settings = SMALL | ({"num_actions": 2} if algorithm is CQL else {})
    with algorithm(dataset=dataset, normalize="obs", **settings) as straight:
        before = straight.policy.weights_sha256()
        wanted = straight.train(40).weights_sha256
    assert wanted != before
    with algorithm(dataset=dataset, normalize="obs", **settings) as half:
        half.train(20)
        half.save(folder)
    with algorithm.load(folder) as rest:
        assert rest.train(20).weights_sha256 == wanted


def test_actions_of_the_dataset_fill_minus_one_to_one(swings):
    """Pendulum's −2 … 2; what its environment gets is what was recorded."""
    model = build_model(ModelSpec("deterministic_actor_q", PENDULUM.observation_space, PENDULUM.action_space))
    taken = np.array([[-2.0], [1.0], [2.0]], np.float32)
    assert model.own_actions(taken).tolist() == [[-1], [0.5], [1]]
    np.testing.assert_array_equal(model.environment_actions(model.own_actions(taken)), taken)
    learner = Learner(model.spec, seed=0, device="cpu")
    learner.add_dataset(swings, capacity=100, rows=64, gamma=0.9)
    drawn = learner.draw("actions", "observations")
    assert drawn["actions"].abs().max() <= 1
    assert drawn["actions"].shape == (64, 1)


# ---- shards


@pytest.mark.parametrize(
    ("algorithm", "data", "more"),
    [
        (MARWIL, "pushes", {"moving_average_sqd_adv_norm_update_rate": 0.1}),
        (CQL, "pushes", {}),
        (CQL, "swings", {"num_actions": 2}),
        (TD3BC, "swings", {}),
    ],
)
def test_shards_change_the_rounding_alone(algorithm, data, more, request):
    dataset, found = request.getfixturevalue(data), []
    for shards in (1, 3):
        with algorithm(dataset=dataset, gradient_shards=shards, **SMALL | {"gradient_steps": 4}, **more) as training:
            training.train(4)
            own, _ = training.actors.snapshot(training._start())
            found.append([each["first_moment"] for each in own["optimizers"].values()] + [own["model"]])
    assert not all(map(np.array_equal, *found))
    for whole, sharded in zip(*found, strict=True):
        np.testing.assert_allclose(whole, sharded, rtol=1e-3, atol=2e-5)
