"""Ape-X's numbers: an ε for each environment, first priorities by whoever acted, and draws in proportion to inserts."""

import numpy as np
import pytest
import torch
from agents_envs import Crowd
from by_hand import rollout_worker
from learning_envs import TwoArms, Walk

from shoal import ApeX, ApeXConfig, runtime
from shoal.envs import resolve
from shoal.rl import Callback, Clock, Learner, RunSettings
from shoal.rl.collect.worker import GroupProgress
from shoal.runtime import InputError


@pytest.fixture
def serial():
    runtime.init(engine="serial")


def test_each_environment_has_its_own_epsilon_whatever_its_group():
    config, expected = ApeXConfig(), 0.4 ** (1 + 7 * np.arange(8) / 7)
    for size in (2, 8):
        settings = RunSettings(n_envs=8, group_size=size)
        found = np.concatenate([ApeX.exploration(config, settings, group).numpy() for group in range(8 // size)])
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert ApeX.exploration(config, RunSettings(n_envs=1), 0).item() == pytest.approx(0.4)


def collected(version=3, n_envs=4, **settings):
    config = ApeXConfig(train_freq=9, buffer_size=64, learning_starts=10**6, **settings)
    worker, model_spec = rollout_worker(
        ApeX, config, resolve(lambda: Walk(limit=4)), RunSettings(n_envs=n_envs, group_size=2), kind="q_network"
    )
    learner = Learner(model_spec, seed=0, device="cpu")
    ApeX.prepare(learner, config)
    weights = learner.model.get_weights()
    rollouts = [worker.collect(group, GroupProgress(), weights, version, Clock(0, 100))[0] for group in (1, 0)]
    worker.close()
    return rollouts, learner, config


def test_each_row_explores_with_its_own_epsilon(serial):
    model = collected(exploration_eps=1.0, exploration_alpha=0.0)[1].model
    q, noise = torch.tensor([[0.0, 1.0]] * 4), torch.tensor([[0.3, 0.9, 0.1]] * 4)
    actions = model.choose(q, noise, torch.tensor([0.2, 0.31, 1.0, 0.0]))
    assert actions.tolist() == [1, 0, 0, 1]


def test_first_priorities_are_the_errors_of_the_weights_that_acted(serial):
    rollouts, learner, config = collected(n_step=1, gamma=0.9)
    metrics = ApeX.update(learner, type(rollouts[0]).side_by_side(rollouts), config, Clock(0, 10**6))
    assert learner.replay.inserted == 2 * 9 * 2
    stored = learner.replay.newest(36)
    with torch.no_grad():
        q, following = (
            learner.model(learner.model.encode(stored[name])) for name in ("observations", "next_observations")
        )
    value = q.gather(-1, torch.from_numpy(stored["actions"]).unsqueeze(-1)).squeeze(-1).numpy()
    errors = stored["rewards"] + stored["discounts"] * following.amax(-1).numpy() - value
    priorities = (np.abs(errors) + 1e-6) ** config.prioritized_replay_alpha
    np.testing.assert_allclose(learner.replay.state()["priorities"], priorities, rtol=1e-4)
    assert metrics == {"train/lag_mean": -3, "train/lag_max": -3}  # a learner of its own that has made no update


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"samples_per_insert": 4, "samples_tolerance": 300}, r"samples_tolerance is 300.*\(4 · 80 \+ 512\) / 2 = 416"),
        ({"replay_shards": 3, "buffer_size": 100}, "replay_shards is 3, but must be a divisor of buffer_size = 100"),
        ({"normalize": "reward"}, "normalize is 'reward', but must be obs or none"),
        ({"samples_per_insert": 0}, "samples_per_insert is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        ApeX(TwoArms, n_envs=8, **settings)


def test_several_agents_are_sent_to_what_trains_them(serial):
    with pytest.raises(
        InputError, match=r"env is 'Crowd', but must be of one agent: .*dqn, or asynchronously with impala"
    ):
        ApeX(Crowd, preset="none")


class Collect(Callback):
    """Keeps the reports."""

    def __init__(self):
        self.reports = []

    def on_iteration_end(self, training, report):
        self.reports.append(report)


def test_without_a_proportion_each_goes_at_its_own_speed(serial):
    seen = Collect()
    settings = {"learning_starts": 50, "batch_size": 4, "gradient_steps": 1, "train_freq": 5, "normalize": "obs"}
    with ApeX(Walk, n_envs=4, group_size=2, buffer_size=100, max_lag=1, **settings) as training:
        training.train(400, callbacks=[seen])
    assert {len(report.schedule["learned"]) for report in seen.reports} == {0, 1}
    assert any(report.schedule["dropped"] for report in seen.reports)


def test_draws_are_in_proportion_to_steps(serial):
    seen, steps = Collect(), 600
    drawing = {"batch_size": 16, "gradient_steps": 4, "samples_per_insert": 2.0}
    settings = drawing | {"learning_starts": 200, "train_freq": 5, "target_update_interval": 20}
    with ApeX(TwoArms, n_envs=4, learning_rate=0.01, gamma=0.5, buffer_size=1000, **settings) as training:
        result = training.train(steps, callbacks=[seen])
    drawn = sum(report.metrics.get("replay/sampled", 0) for report in seen.reports)
    assert drawn == pytest.approx(2 * (result.timesteps - 200), rel=0.2)
    assert seen.reports[-1].metrics["train/n_updates"] == drawn / 16
