"""The number of workers, the engine, and workers that are killed have no influence on a single bit of the weights."""

from functools import cache

import pytest
from learning_envs import DiesOnce, Walk

from shoal import runtime
from shoal.algorithms import ALGORITHMS
from shoal.rl import Callback

COMMON = {"n_envs": 12, "group_size": 3, "seed": 5}
SETTINGS = {
    "ppo": {"n_steps": 32, "batch_size": 64, "n_epochs": 4, "learning_rate": 0.003},
    "a2c": {"n_steps": 8, "learning_rate": 0.003},
    "dqn": {
        "train_freq": 4, "learning_starts": 200, "buffer_size": 500, "batch_size": 16, "target_update_interval": 150,
        "exploration_fraction": 0.5, "n_step": 3, "prioritized_replay": True, "learning_rate": 0.003,
        "gradient_steps": 1,
    },
    "qrdqn": {
        "train_freq": 4, "learning_starts": 200, "batch_size": 16, "target_update_interval": 150,
        "exploration_fraction": 0.5, "learning_rate": 0.003, "policy_kwargs": {"n_quantiles": 11},
    },
    "sac": {"train_freq": 4, "learning_starts": 200, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
    "td3": {"train_freq": 4, "learning_starts": 200, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
}  # fmt: skip
STEPS = 4 * 12 * 32
ENVS = {"td3": "Pendulum-v1", "sac": "Pendulum-v1"}


def train(name, workers, env=None, callbacks=(), timesteps=STEPS, **changes):
    settings = {"preset": "none", **COMMON, **SETTINGS[name], "workers": workers, **changes}
    with ALGORITHMS[name](env or env_of(name), **settings) as algorithm:
        return algorithm.train(timesteps, callbacks=callbacks).weights_sha256


def env_of(name):
    return ENVS.get(name, "CartPole-v1")


@cache
def serially(name, seed=5):
    """Hash of the weights with one worker on the serial engine."""
    runtime.shutdown()
    runtime.init(engine="serial")
    digest = train(name, 1, seed=seed)
    runtime.shutdown()
    return digest


class Kill(Callback):
    """Kills actors of the training after its third iteration; they come back."""

    def __init__(self, choose):
        self.choose = choose

    def on_iteration_end(self, training, report):
        if report.iteration == 3:
            runtime.kill(self.choose(training), no_restart=False)


class StopAt(Callback):
    """Ends a training after so many steps; its schedules are those of the whole."""

    def __init__(self, timesteps):
        self.timesteps = timesteps

    def on_iteration_end(self, training, report):
        return report.timesteps < self.timesteps


@pytest.fixture(params=["ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS if name != "ppo")])
def name(request):
    """Name of an algorithm."""
    return request.param


@pytest.fixture
def expected(name):
    """Hash of the weights with one worker on the serial engine."""
    return serially(name)


def test_another_seed_gives_other_weights(name, expected):
    assert serially(name, seed=6) != expected


@pytest.mark.parametrize("workers", [3, *(pytest.param(workers, marks=pytest.mark.slow) for workers in (1, 2, 4))])
def test_any_number_of_workers_on_any_engine(expected, engine, name, workers):
    assert train(name, workers) == expected


@pytest.mark.slow
@pytest.mark.parametrize("other", [name for name in SETTINGS if name != "ppo"])
def test_every_algorithm_has_the_same_weights_on_one_and_on_three_workers(other, processes):
    assert train(other, 1) == train(other, 3)


def test_actors_killed_between_iterations(expected, engine, name):
    assert train(name, 2, callbacks=[Kill(lambda training: training.actors.workers.actors[0])]) == expected
    assert train(name, 2, callbacks=[Kill(lambda training: training.actors.learner.actor)]) == expected


def test_a_worker_that_dies_in_the_middle_of_a_rollout(processes, tmp_path):
    (tmp_path / "exists").touch()
    calm, killed = (
        train("ppo", 2, DiesOnce, timesteps=2 * STEPS, n_steps=64, env_kwargs={"marker": str(tmp_path / name)})
        for name in ("exists", "is made at death")
    )
    assert (tmp_path / "is made at death").exists()
    assert calm == killed == train("ppo", 3, Walk, timesteps=2 * STEPS, n_steps=64)


def test_a_resumed_training(expected, engine, name, tmp_path):
    algorithm = ALGORITHMS[name]
    with_replay = {"save_replay": True} if hasattr(algorithm.config_class, "save_replay") else {}
    with algorithm(env_of(name), preset="none", **COMMON, **SETTINGS[name], **with_replay, workers=2) as first:
        first.train(
            STEPS, callbacks=StopAt(1152)
        )  # after a snapshot of the learner: its replay buffer is in two pieces
        first.save(tmp_path / "run")
    with algorithm.load(tmp_path / "run", workers=3) as second:
        assert second.train(STEPS - 1152).weights_sha256 == expected
