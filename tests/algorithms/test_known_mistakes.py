"""What implementations of these algorithms are known to get wrong, by numbers worked by hand; the rest of it is beside
the parts that it is about (returns, transitions, replay, losses)."""

import functools
import math

import numpy as np
import pytest
import torch
from by_hand import rollout_worker
from gymnasium import spaces
from learning_envs import Countdown, Walk

from shoal import runtime
from shoal.algorithms import (
    A2C,
    DQN,
    PPO,
    SAC,
    A2CConfig,
    DQNConfig,
    PPOConfig,
    QRDQNConfig,
    SACConfig,
    TD3Config,
)
from shoal.algorithms import dqn as dqn_file
from shoal.algorithms import sac as sac_file
from shoal.algorithms.a2c import a2c_loss
from shoal.algorithms.dqn import dqn_loss
from shoal.algorithms.ppo import ppo_loss
from shoal.algorithms.qrdqn import qrdqn_loss
from shoal.algorithms.td3 import td3_target
from shoal.envs import resolve
from shoal.rl import (
    Batch,
    Callback,
    Clock,
    Learner,
    ModelSpec,
    ReplayBuffer,
    Rollout,
    RunSettings,
    build_model,
    learn_from_replay,
    normalized_advantages,
)
from shoal.rl.collect.worker import GroupProgress
from shoal.rl.data.columns import replay_columns
from shoal.rl.data.transitions import n_step_sums

TWO = spaces.Box(-1, 1, (2,))


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def build(kind, actions, observations=TWO, **policy_kwargs):
    return build_model(ModelSpec(kind, observations, actions, {"net_arch": [], **policy_kwargs}))


def learner_of(algorithm, config, kind, actions, rows=8, **policy_kwargs):
    """A learner whose buffer holds transitions of zeros: reward 1, discount ½."""
    made = Learner(ModelSpec(kind, TWO, actions, {"net_arch": [], **policy_kwargs}), seed=1, device="cpu")
    algorithm.prepare(made, config)
    zeros, ones = np.zeros((rows, 2), np.float32), np.ones(rows, np.float32)
    taken = np.zeros(rows, np.int64) if isinstance(actions, spaces.Discrete) else np.zeros((rows, 1), np.float32)
    columns = {"actions": taken, "rewards": ones, "next_observations": zeros, "discounts": ones / 2}
    made.replay.write(Batch({"observations": zeros} | columns))
    return made


def zero(model):
    with torch.no_grad():
        model.flat.zero_()
    return model


# ---- what all have in common


def collected(env, steps=40):
    spec, settings = resolve(env), RunSettings(n_envs=3, group_size=3, seed=2)
    worker, model_spec = rollout_worker(DQN, DQNConfig(train_freq=steps), spec, settings, "q_network")
    weights = build_model(model_spec).get_weights()
    return model_spec, worker.collect(0, GroupProgress(), weights, 0, Clock(0, 100))[0]


def test_no_transition_begins_at_the_last_or_leads_to_the_first_observation_of_an_episode():
    spec, rollout = collected(
        Countdown
    )  # shows how many steps are left: each step leads from k to k − 1, the last to 0
    buffer = ReplayBuffer(replay_columns(spec.observation_space, spec.action_space), 1000, gamma=0.9)
    buffer.insert(rollout)
    held = buffer.newest(buffer.size)
    assert buffer.size == 120  # every step is one
    np.testing.assert_array_equal(held["next_observations"], held["observations"] - 1)
    np.testing.assert_array_equal(held["discounts"] == 0, held["next_observations"][:, 0] == 0)


class Both(Walk):
    """Terminates and truncates in the same step."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, truncated, info


def test_a_step_that_terminates_and_truncates_terminates():
    spec, rollout = collected(functools.partial(Both, limit=4, noise=0.0))
    assert rollout.steps["terminations"].sum() == 30
    assert not rollout.steps["truncations"].any()
    buffer = ReplayBuffer(replay_columns(spec.observation_space, spec.action_space), 1000, gamma=0.9)
    buffer.insert(rollout)
    assert (buffer.newest(120)["discounts"] == 0).sum() == 30


def test_an_undiscounted_sum_of_three_steps():
    ends = np.array([[False], [False], [True], [False]])
    sums, discounts, _, _ = n_step_sums(
        rewards=np.float32([[1], [2], [4], [8]]), terminations=np.zeros_like(ends), ends=ends, gamma=1.0, n=3
    )
    assert sums[:, 0].tolist() == [7, 6, 4, 8]
    assert discounts[:, 0].tolist() == [1, 1, 1, 1]


def rows_of(count, **columns):
    generator = torch.Generator().manual_seed(3)
    made = {name: torch.rand(count, *shape, generator=generator) for name, shape in columns.items()}
    return made | {"actions": made.get("actions", torch.arange(count) % 2)}


def q_rows(count):
    return rows_of(count, observations=(2,), next_observations=(2,), rewards=(), discounts=(), weights=())


def pi_rows(count):
    return rows_of(count, rows=(2,), log_probs=(), values=(), advantages=(), returns=())


def critic_loss(minibatch):
    model = build("gaussian_actor_q", spaces.Box(-1, 1, (1,)))
    noise = minibatch["weights"].unsqueeze(-1)
    given = minibatch | {"actions": minibatch["rewards"].unsqueeze(-1)}
    return sac_file.critic_loss(model, model, given, 0.2, noise)


LOSSES = {
    "ppo": (
        pi_rows,
        lambda m: ppo_loss(ACTOR_CRITIC(), m, PPOConfig(normalize_advantage=False, ent_coef=1), 0.2, None)[0],
    ),
    "a2c": (pi_rows, lambda m: a2c_loss(ACTOR_CRITIC(), m, A2CConfig(ent_coef=1))[0]),
    "dqn": (q_rows, lambda m: dqn_loss(Q("q_network"), Q("q_network"), m, DQNConfig())[0]),
    "qrdqn": (q_rows, lambda m: qrdqn_loss(Q("quantile_q_network"), Q("quantile_q_network"), m, QRDQNConfig())[0]),
    "sac": (q_rows, critic_loss),
}


def ACTOR_CRITIC():
    return build("actor_critic", spaces.Discrete(2))


def Q(kind):
    return build(kind, spaces.Discrete(2))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_a_mean_over_rows(name):
    make, loss = LOSSES[name]
    minibatch = make(6)
    twice = {column: torch.cat([values, values]) for column, values in minibatch.items()}
    torch.testing.assert_close(loss(twice), loss(minibatch))


def test_a_learning_rate_falls_with_environment_steps_however_many_updates_are_made():
    for gradient_steps in (1, 5):
        config = DQNConfig(learning_rate="lin_0.01", gradient_steps=gradient_steps, batch_size=2, learning_starts=0)
        learner = learner_of(DQN, config, "q_network", spaces.Discrete(2))
        steps = Batch(
            {
                "observations": np.zeros((1, 1, 2), np.float32),
                "actions": np.zeros((1, 1), np.int64),
                "rewards": np.zeros((1, 1), np.float32),
                "terminations": np.zeros((1, 1), np.bool_),
                "truncations": np.zeros((1, 1), np.bool_),
            },
            2,
        )
        last = Batch({"rows": np.array([0]), "observations": np.zeros((1, 2), np.float32)})
        found = DQN.update(learner, Rollout(steps, last, 0), config, Clock(25, 100))
        assert found["train/learning_rate"] == pytest.approx(0.0075)
        assert learner.n_updates == gradient_steps


def test_the_target_network_is_another_one():
    learner = learner_of(DQN, DQNConfig(batch_size=4), "q_network", spaces.Discrete(2))
    before = learner.target.flat.clone()
    dqn_file.descend(learner, DQNConfig(batch_size=4), 0.1, loss_of=dqn_loss, beta=1.0)
    assert (learner.model.flat != before).any()
    assert torch.equal(learner.target.flat, before)
    learner.update_target(0.25)
    torch.testing.assert_close(learner.target.flat, before + 0.25 * (learner.model.flat - before))


# ---- PPO and A2C


def test_equal_advantages_are_zero_when_normalized():
    minibatch = normalized_advantages(pi_rows(4) | {"advantages": torch.full((4,), 3.0)})
    _, metrics = ppo_loss(ACTOR_CRITIC(), minibatch, PPOConfig(), 0.2, None)
    assert metrics["train/policy_gradient_loss"].item() == 0
    assert not normalized_advantages({"advantages": np.full(4, 3, np.float32)})["advantages"].any()


def test_advantages_are_normalized_by_the_deviation_of_a_sample():
    given = np.array([3, 1, 5, -1], np.float32)  # mean 2, squares of what is left 1 + 1 + 9 + 9
    wanted = (given - 2) / math.sqrt(20 / 3)
    for advantages in (given, torch.from_numpy(given)):
        np.testing.assert_allclose(normalized_advantages({"advantages": advantages})["advantages"], wanted, rtol=1e-6)
    assert normalized_advantages({"advantages": given[:1]})["advantages"] == [3]


class Notes(Callback):
    def __init__(self):
        self.metrics = []

    def on_iteration_end(self, training, report):
        self.metrics.append(dict(report.metrics))


@pytest.mark.parametrize("space", [spaces.Discrete(3, start=-1), spaces.MultiDiscrete([2, 3]), spaces.Box(-5, 3, (2,))])
def test_the_first_ratio_of_an_update_is_one(space):
    notes = Notes()
    settings = {"n_envs": 4, "n_steps": 16, "batch_size": 64, "n_epochs": 1, "clip_range": 1e-5, "preset": "none"}
    with PPO(functools.partial(Walk, space), **settings, seed=3) as ppo:
        ppo.train(192, callbacks=[notes])
    assert len(notes.metrics) == 3
    for metrics in notes.metrics:
        assert metrics["train/clip_fraction"] == 0  # no ratio is further than 1e-5 from 1
        assert abs(metrics["train/approx_kl"]) < 1e-7  # what float32 rounds


@pytest.mark.parametrize(("target_kl", "steps"), [(None, 6), (0.2, 2), (0.1, 1), (0.05, 0)])
def test_an_update_ends_before_the_first_step_that_is_too_far(monkeypatch, target_kl, steps):
    # of three minibatches the approximate KL is 0.1, 0.2, 0.35 in both epochs; the limit is 1.5 · target_kl
    divergences = [0.1, 0.2, 0.35]
    calls = []

    def loss(plain, minibatch, **coefficients):
        calls.append(divergences[len(calls) % 3])
        values = learner.model.values(torch.from_numpy(minibatch["rows"]))
        metrics = {"train/loss": values.sum().detach(), "train/approx_kl": torch.tensor(calls[-1])}
        return values.sum(), metrics

    monkeypatch.setattr("shoal.algorithms.ppo.clipped_surrogate", loss)
    config = PPOConfig(target_kl=target_kl, n_epochs=2, batch_size=2)
    learner = Learner(ModelSpec("actor_critic", TWO, spaces.Discrete(2)), seed=0, device="cpu")
    PPO.prepare(learner, config)
    columns = dict.fromkeys(["rewards", "values", "next_values", "log_probs"], np.ones((3, 2), np.float32))
    flags = dict.fromkeys(["terminations", "truncations"], np.zeros((3, 2), np.bool_))
    steps_of = {"observations": np.zeros((3, 2, 2), np.float32), "actions": np.zeros((3, 2), np.int64)}
    last = Batch({"rows": np.array([4, 5]), "observations": np.zeros((2, 2), np.float32)})
    PPO.update(learner, Rollout(Batch(steps_of | columns | flags, 2), last, 0), config, Clock(0, 10))
    assert learner.optimizers["model"].steps == steps
    assert len(calls) == (6 if target_kl is None else steps + 1)


@pytest.mark.parametrize(("log_std_init", "deviation"), [(0.0, 1.0), (-1.0, math.exp(-1))])
def test_the_first_standard_deviation_is_what_was_asked_for(log_std_init, deviation):
    model = build("actor_critic", spaces.Box(-1, 1, (2,)), log_std_init=log_std_init)
    assert model.standard_deviation() == pytest.approx(deviation)
    rows = torch.zeros(1, 2)
    noise = torch.tensor([[1.0, -2.0]])
    mean = model.choose(model.outputs(rows), None)
    torch.testing.assert_close(model.choose(model.outputs(rows), noise) - mean, deviation * noise)


def test_a2c_makes_one_step_for_each_rollout():
    notes = Notes()
    with A2C(Walk, n_envs=4, n_steps=5, seed=3) as a2c:
        a2c.train(100, callbacks=[notes])
    assert [metrics["train/n_updates"] for metrics in notes.metrics] == [1, 2, 3, 4, 5]


# ---- DQN


def test_exploration_of_an_evaluation_is_its_own():
    model = build("q_network", spaces.Discrete(2))
    q, noise = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.06, 0.9, 0.1]])
    assert model.choose(q, noise, 1.0).tolist() == [0]  # ε of the training's beginning
    assert model.choose(q, noise).tolist() == [1]  # 0.05, whatever the training is at
    assert model.choose(q, None).tolist() == [1]


@pytest.mark.usefixtures("one_cycle_each")
def test_epsilon_goes_on_after_a_resume(tmp_path):
    settings = {"n_envs": 2, "train_freq": 5, "learning_starts": 10**6, "exploration_fraction": 0.8, "seed": 1}

    class Stop(Notes):
        def on_iteration_end(self, training, report):
            super().on_iteration_end(training, report)
            return report.timesteps < 40

    whole, first, second = Notes(), Stop(), Notes()
    with DQN("CartPole-v1", preset="none", **settings) as dqn:
        dqn.train(100, callbacks=[whole])
    with DQN("CartPole-v1", preset="none", **settings) as dqn:
        dqn.train(100, callbacks=[first])
        dqn.save(tmp_path)
    with DQN.load(tmp_path) as dqn:
        dqn.train(60, callbacks=[second])
    rates = [metrics["rollout/exploration_rate"] for metrics in whole.metrics]
    assert rates == pytest.approx([1 - 0.95 * min(1, steps / 80) for steps in range(10, 101, 10)])
    assert [metrics["rollout/exploration_rate"] for metrics in first.metrics + second.metrics] == rates


@pytest.mark.parametrize(("timesteps", "beta"), [(0, 0.4), (50, 0.7), (100, 1.0)])
def test_importance_weights_are_in_full_at_the_end(timesteps, beta):
    config = DQNConfig(prioritized_replay=True, learning_starts=0)
    learner = learner_of(DQN, config, "q_network", spaces.Discrete(2))
    seen = []

    class Seen(Exception):
        pass

    def sample(rows, *, beta, plain):
        seen.append(beta)
        raise Seen

    learner.sample, learner.can_sample = sample, lambda clock, starts: True
    learner.replay.insert = lambda rollout: None
    steps = Batch({"rewards": np.zeros((1, 1), np.float32)}, 2)
    with pytest.raises(Seen):
        DQN.update(learner, Rollout(steps, Batch({}), 0), config, Clock(timesteps, 100))
    assert seen == pytest.approx([beta])


def test_a_priority_is_the_error_before_the_step():
    config = DQNConfig(prioritized_replay=True, prioritized_replay_alpha=1.0, batch_size=4)
    learner = learner_of(DQN, config, "q_network", spaces.Discrete(2))
    zero(learner.model)
    zero(learner.target)
    dqn_file.descend(learner, config, 0.5, loss_of=dqn_loss, beta=1.0)
    assert learner.model(torch.zeros(1, 2))[0, 0].item() == pytest.approx(0.5)  # Adam's first step
    drawn = learner.replay.state()["priorities"]
    assert set(np.round(drawn, 5).tolist()) == {1.00000}  # |1 + ½ · 0 − 0|, not |1 − 0.5|; others' is the largest: 1


def test_how_often_transitions_are_drawn_is_their_priority():
    spec = replay_columns(TWO, spaces.Discrete(2))
    buffer = ReplayBuffer(spec, 8, gamma=0.9, alpha=1.0)
    rows = 8
    zeros = np.zeros((rows, 2), np.float32)
    columns = {"observations": zeros, "next_observations": zeros, "actions": np.zeros(rows, np.int64)}
    buffer.write(Batch(columns | dict.fromkeys(["rewards", "discounts"], np.zeros(rows, np.float32))))
    weights = np.array([1, 2, 3, 4, 5, 6, 7, 0.5])
    buffer.set_errors(np.arange(rows), weights)
    draws = 500
    counts = np.zeros(rows)
    for seed in range(40):
        counts += np.bincount(buffer.sample(np.random.default_rng(seed).random(draws))["indices"], minlength=rows)
    wanted = 40 * draws * weights / weights.sum()
    assert ((counts - wanted) ** 2 / wanted).sum() < 24.3  # χ² of 7 degrees of freedom, p = 0.001; strata vary less


# ---- SAC


def test_log_sigma_has_hard_limits():
    model = build("gaussian_actor_q", spaces.Box(-1, 1, (1,)))
    found = model.distribution(torch.tensor([[0.5, 5.0], [0.5, -50.0], [0.5, 1.5]])).log_std
    assert found[:, 0].tolist() == [2, -20, 1.5]


def test_the_next_action_is_of_the_policy_of_now():
    model, target = (zero(build("gaussian_actor_q", spaces.Box(-1, 1, (1,)))) for _ in range(2))
    with torch.no_grad():
        target.actor.layers[-1].bias.fill_(9.0)  # a target's actor, which must have no part in it
        model.actor.layers[-1].bias.copy_(torch.tensor([math.atanh(0.5), -20.0]))  # a' = 0.5
        for critic in target.critics:
            critic.layers[-1].weight.copy_(torch.tensor([[0.0, 0.0, 4.0]]))  # Q = 4 a
    minibatch = {name: torch.zeros(1, 2) for name in ("observations", "next_observations")}
    minibatch |= {"actions": torch.zeros(1, 1), "rewards": torch.ones(1), "discounts": torch.tensor([0.5])}
    loss = sac_file.critic_loss(model, target, minibatch, 0.0, torch.zeros(1, 1))
    assert loss.item() == pytest.approx(0.5 * 2 * (1 + 0.5 * 4 * 0.5) ** 2)


def test_discrete_losses_by_hand():
    # three equally probable actions, each of value 2: E log π = −log 3
    config = SACConfig(batch_size=4)
    learner = learner_of(SAC, config, "categorical_actor_q", spaces.Discrete(3))
    zero(learner.model)
    with torch.no_grad():
        learner.model.log_alpha.fill_(math.log(0.25))
        for critic in learner.model.critics:
            critic.layers[-1].bias.fill_(2.0)
    zero(learner.target)
    metrics = sac_file.descend(learner, config, 0.0)  # no step: all losses are of these weights
    # y = 1 + ½ (0 + ¼ log 3); two critics
    y = 1 + 0.5 * 0.25 * math.log(3)
    assert metrics["train/critic_loss"].item() == pytest.approx(0.5 * 2 * (2 - y) ** 2)
    assert metrics["train/actor_loss"].item() == pytest.approx(-0.25 * math.log(3) - 2)  # α weighs log π
    surplus = -math.log(3) + 0.89 * math.log(3)  # an expectation, not a sum over actions
    assert metrics["train/ent_coef_loss"].item() == pytest.approx(-math.log(0.25) * surplus)
    assert learner.model.log_alpha.grad.item() == pytest.approx(-surplus)  # of log α: α is not in it, nor the actor


@pytest.mark.parametrize("gradient_steps", [1, 3])
def test_target_critics_follow_each_gradient_step(gradient_steps):
    config = SACConfig(batch_size=4, gradient_steps=gradient_steps, tau=0.5, learning_starts=0)
    learner = learner_of(SAC, config, "gaussian_actor_q", spaces.Box(-1, 1, (1,)))
    part = learner.model.part("critics")
    with torch.no_grad():
        learner.target.flat[part] = learner.model.flat[part] + 1
    start = learner.model.flat[part].clone()

    def still(learner, config, learning_rate):
        return sac_file.descend(learner, config, 0.0)

    learner.replay.insert = lambda rollout: None
    steps = Batch({"rewards": np.zeros((1, 1), np.float32)}, 2)
    learn_from_replay(learner, Rollout(steps, Batch({}), 0), config, Clock(0, 10), still)
    torch.testing.assert_close(learner.target.flat[part] - start, torch.full_like(start, 0.5**gradient_steps))


# ---- TD3


def test_a_terminated_step_has_no_target_beyond_its_reward():
    model = build("deterministic_actor_q", spaces.Box(-1, 1, (1,)))
    minibatch = {"next_observations": torch.ones(2, 2), "rewards": torch.tensor([3.0, 3.0])}
    minibatch["discounts"] = torch.tensor([0.0, 0.9])
    y = td3_target(model, minibatch, torch.zeros(2, 1), TD3Config())
    assert y[0].item() == 3.0
    assert y[1].item() != 3.0
