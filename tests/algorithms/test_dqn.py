import gymnasium
import numpy as np
import pytest
import torch
from by_hand import one_transition

from shoal import runtime
from shoal.algorithms import DQN, DQNConfig
from shoal.algorithms.dqn import dqn_loss, epsilon
from shoal.rl import Batch, Callback, Clock, Learner, ModelSpec
from shoal.runtime import InputError


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


class Table:
    """A network that gives the rows of a table: an observation is the number of its row."""

    def __init__(self, rows):
        self.table = torch.tensor(rows, requires_grad=True)

    def __call__(self, observations):
        return self.table[observations.long()]


ONLINE = [[0.0, 1.0], [5.0, 4.0]]  # prefers action 0 in state 1
TARGET = [[0.0, 0.0], [2.0, 3.0]]  # where action 1 is worth more


def test_the_target_is_the_largest_value_of_the_target_network():
    model = Table(ONLINE)
    loss, errors, q = dqn_loss(model, Table(TARGET), one_transition(), DQNConfig())
    assert errors.item() == 1 + 0.5 * 3 - 1  # r + γ max Q⁻ − Q
    assert q.item() == 1
    assert loss.item() == 1.5 - 0.5  # Huber beyond 1: |δ| − ½
    loss.backward()
    assert model.table.grad.tolist() == [[0, -1], [0, 0]]  # the taken action alone; no gradient through the target


def test_double_lets_the_weights_choose_and_the_target_network_value():
    _, errors, _ = dqn_loss(Table(ONLINE), Table(TARGET), one_transition(), DQNConfig(double_q=True))
    assert errors.item() == 1 + 0.5 * 2 - 1


def test_where_an_episode_terminated_nothing_follows():
    _, errors, _ = dqn_loss(Table(ONLINE), Table(TARGET), one_transition(discounts=[0.0]), DQNConfig())
    assert errors.item() == 0


@pytest.mark.parametrize(("reward", "gradient"), [(0.9, -0.9), (1.0, -1.0), (1.1, -1.0), (-1.1, 1.0)])
def test_the_gradient_of_huber_on_both_sides_of_one(reward, gradient):
    model = Table([[0.0, 0.0], [0.0, 0.0]])
    loss, _, _ = dqn_loss(model, model, one_transition(rewards=[reward]), DQNConfig())
    loss.backward()
    assert model.table.grad[0, 1].item() == pytest.approx(gradient)


def test_importance_weights_and_the_mean_over_rows():
    rows = {name: torch.cat([value, value]) for name, value in one_transition().items()}
    rows["weights"] = torch.tensor([0.5, 0.25])
    loss, _, _ = dqn_loss(Table(ONLINE), Table(TARGET), rows, DQNConfig())
    assert loss.item() == (0.5 + 0.25) / 2


def test_epsilon_falls_with_environment_steps():
    config = DQNConfig(exploration_fraction=0.5, exploration_initial_eps=1.0, exploration_final_eps=0.1)
    assert [epsilon(config, Clock(steps, 100)) for steps in (0, 25, 50, 99)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert epsilon(DQNConfig(exploration_fraction=0.0), Clock(0, 100)) == pytest.approx(0.05)


def test_the_target_network_changes_by_environment_steps_whatever_train_freq_is():
    for train_freq, expected in ((4, 5), (7, 5), (50, 2), (1, 5)):  # 50 steps at a time pass several multiples at once
        clocks = [Clock(steps, 10**6) for steps in range(0, 100, train_freq)]
        assert sum(clock.passes(20, train_freq) for clock in clocks) == expected


class Watch(Callback):
    def __init__(self, reports):
        self.reports = reports

    def on_iteration_end(self, training, report):
        self.reports.append(report)


@pytest.mark.usefixtures("one_cycle_each")
def test_all_switches_together_learn():
    switches = {"double_q": True, "dueling": True, "n_step": 3, "prioritized_replay": True}
    settings = {"n_envs": 4, "learning_starts": 64, "batch_size": 16, "target_update_interval": 100}
    with DQN("CartPole-v1", preset="none", **settings, **switches, seed=1) as dqn:
        reports = []
        dqn.train(400, callbacks=Watch(reports))
        assert dqn.policy.model.v is not None
    last = reports[-1].metrics
    assert last["replay/inserted"] == last["replay/size"] <= 400 - 2 * 4
    assert last["train/n_updates"] == 4 * sum("train/loss" in report.metrics for report in reports) > 0
    assert not any("train/loss" in report.metrics for report in reports if report.timesteps < 64)
    rates = [report.metrics["rollout/exploration_rate"] for report in reports]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.05)


def test_switches_off_are_plain_dqn_bit_for_bit():
    def digest(**changes):
        with DQN("CartPole-v1", preset="none", n_envs=2, learning_starts=16, seed=3, **changes) as dqn:
            return dqn.train(128).weights_sha256

    plain = digest()
    assert digest(prioritized_replay=False, prioritized_replay_alpha=0.9, dueling=False, n_step=1) == plain
    assert digest(n_step=2) != plain
    assert digest(double_q=True) != plain or digest(prioritized_replay=True) != plain


def test_a_replay_buffer_that_cannot_fit_is_refused_with_the_arithmetic():
    with pytest.raises(InputError, match=r"buffer_size is 1,000,000,000,000: at 48 bytes a transition .* TB.*At most"):
        DQN("CartPole-v1", buffer_size=10**12)


def test_continuous_actions_are_refused_with_what_works():
    with pytest.raises(
        InputError, match=r"dqn does not work with action space Box\(1,\).*a2c, .*ddpg, .*ppo, sac, td3"
    ):
        DQN("Pendulum-v1")


def test_draws_are_of_the_run_seed_and_the_number_of_the_update():
    learner = Learner(ModelSpec("q_network", *spaces()), seed=1, device="cpu")
    DQN.prepare(learner, DQNConfig(buffer_size=100))
    rows = np.arange(50, dtype=np.float32)
    observations = np.repeat(rows[:, np.newaxis], 4, 1)
    learner.replay.write(
        Batch(
            {
                "observations": observations,
                "actions": rows.astype(np.int64) % 2,
                "rewards": rows,
                "next_observations": observations,
                "discounts": rows,
            }
        )
    )
    first, again = (learner.sample(8)[1].tolist() for _ in range(2))
    learner.n_updates = 1
    assert first == again != learner.sample(8)[1].tolist()


def spaces():
    env = gymnasium.make("CartPole-v1")
    return env.observation_space, env.action_space


def test_that_the_replay_buffer_fills_again_is_said_at_resume(tmp_path, caplog):
    with DQN("CartPole-v1", engine="serial", device="cpu", preset="none", learning_starts=7) as algorithm:
        algorithm.train(8)
        algorithm.save(tmp_path)
    DQN.load(tmp_path, learning_starts=20)
    said = [record.getMessage() for record in caplog.records if "replay buffer" in record.getMessage()]
    assert len(said) == 1
    assert "fills again" in said[0]
    assert "learning_starts = 20" in said[0]
