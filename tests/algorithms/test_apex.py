"""Ape-X's numbers: an ε for each environment, first priorities by whoever acted, and draws in proportion to inserts."""

import os
import signal

import numpy as np
import pytest
import torch
from agents_envs import Crowd, Rounds
from by_hand import joint_worker, rollout_worker
from learning_envs import TwoArms, Walk

from shoal import ApeX, ApeXConfig, RunFolder, evaluate, runtime
from shoal.envs import resolve
from shoal.rl import Callback, Clock, Learner, RunSettings, verify
from shoal.rl.collect.worker import GroupProgress
from shoal.rl.data.rate_limit import SAMPLED
from shoal.rl.models.joint_model import JointModel
from shoal.runtime import InputError


@pytest.fixture
def serial():
    runtime.shutdown()
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


def test_all_agents_of_an_environment_explore_with_its_epsilon():
    settings, config = RunSettings(n_envs=4, group_size=2), ApeXConfig()
    alone = ApeX.exploration(config, settings, 1).numpy()
    together = ApeX.exploration(config, settings, 1, agents=3).numpy()
    assert together.tolist() == [alone[0]] * 3 + [alone[1]] * 3


@pytest.mark.parametrize("env", [Crowd, Rounds], ids=["parallel", "turns"])
def test_what_agents_that_do_not_act_left_behind_is_in_no_shard(serial, env):
    """Agents die and are born, or wait for their turn. ε is 0, so each action has the highest value."""
    config = ApeXConfig(train_freq=14, buffer_size=200, learning_starts=10**6, n_step=1, exploration_eps=0.0)
    kwargs = {"reborn": True} if env is Crowd else None
    worker, joint = joint_worker(ApeX, config, env, 2, env_kwargs=kwargs, kind="q_network")
    learner = Learner(joint.policies["shared"], seed=0, device="cpu")
    ApeX.prepare(learner, config)
    rollout = worker.collect(1, GroupProgress(), JointModel(joint).get_weights(), 0, Clock(0, 100))[0]["shared"]
    worker.close()
    assert rollout.group == 1
    ApeX.update(learner, rollout, config, Clock(0, 10**6))
    stored, acted = learner.replay.newest(200), rollout.transitions
    assert 0 < stored["rewards"].size == acted.sum() < acted.size
    best = learner.model(torch.from_numpy(rollout.steps["observations"][acted])).amax(-1).detach()
    np.testing.assert_allclose(rollout.steps["values"][acted], best, rtol=1e-5)
    with torch.no_grad():
        values, following = (
            learner.model(torch.from_numpy(stored[name])).amax(-1).numpy()
            for name in ("observations", "next_observations")
        )
    errors = stored["rewards"] + stored["discounts"] * following - values
    priorities = (np.abs(errors) + 1e-6) ** config.prioritized_replay_alpha
    np.testing.assert_allclose(learner.replay.state()["priorities"], priorities, rtol=1e-4)


AGENTS = {
    "n_envs": 4, "group_size": 2, "seed": 5, "preset": "none", "policy_kwargs": {"net_arch": [8]}, "train_freq": 6,
    "learning_starts": 16, "batch_size": 8, "gradient_steps": 2, "buffer_size": 120, "target_update_interval": 5,
}  # fmt: skip


def test_policies_of_several_agents_are_verified_and_a_frozen_one_stays(serial, tmp_path):
    seen, run = Collect(), tmp_path / "run"
    settings = AGENTS | {"policies": "separate", "frozen_policies": "c", "save_replay": True}
    with RunFolder(run) as folder, ApeX(Crowd, **settings, max_lag=1, workers=2) as training:
        frozen = training.policy.policy("c").get_weights()
        training.train(120, callbacks=[folder, seen])
    with RunFolder(run, resume=True) as folder, ApeX.load(run) as training:
        training.train(60, callbacks=[folder, seen])
        assert training.policy.policy("c").get_weights().tobytes() == frozen.tobytes()
    assert any(not report.schedule["learned"] for report in seen.reports)  # the learner draws without new rollouts
    drawing = [report.metrics for report in seen.reports if SAMPLED in report.metrics]
    both = [metrics for metrics in drawing if all(f"policies/{name}/{SAMPLED}" in metrics for name in "ab")]
    assert both  # a training is paced by what each of them draws, not by the sum
    assert {metrics[SAMPLED] for metrics in drawing} == {16}
    assert verify(ApeX, run, workers=3).same


@pytest.mark.slow
def test_killed_shards_and_learners_of_several_policies_change_no_weight(processes, tmp_path):
    class KillTwice(Callback):
        killed = 0

        def on_iteration_end(self, training, report):
            if report.iteration in (3, 6):
                runtime.kill(training.actors.learner.actor, no_restart=False)
            if report.iteration == 9:  # how many there are is a matter of speed
                shards = [actor for actor in runtime.state.list_actors() if "ReplayShard" in actor.class_name]
                os.kill(shards[-1].pid, signal.SIGKILL)
                self.killed = report.iteration

    run, kill = tmp_path / "run", KillTwice()
    settings = AGENTS | {"policies": "separate", "env_kwargs": {"reborn": True}, "learning_starts": 20}
    with RunFolder(run) as folder, ApeX(Crowd, **settings, samples_per_insert=1.0, workers=2) as training:
        training.train(600, callbacks=[folder, kill])
    assert kill.killed
    assert verify(ApeX, run, workers=1).same


@pytest.mark.slow
def test_what_agents_are_to_do_is_learned(serial):
    """Whoever repeats the symbol in each of 12 + 4 + 7 steps has 23; chance gives 7.7."""
    settings = {
        "n_envs": 8, "preset": "none", "policies": {"a": "x", "*": "y"}, "train_freq": 4, "learning_starts": 200,
        "gamma": 0.5, "batch_size": 64, "gradient_steps": 4, "buffer_size": 10_000, "target_update_interval": 50,
        "learning_rate": 2e-3, "samples_per_insert": 8.0,
    }  # fmt: skip
    with ApeX(Crowd, **settings, seed=100) as training:
        training.train(4_000)
        assert evaluate(training.policy, Crowd, episodes=20, seed=10_000).episode_return_mean > 20


def test_a_league_is_refused(serial):
    with pytest.raises(InputError, match="apex does not play in a league"):
        ApeX(Crowd, **AGENTS, league_freq=100)


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
