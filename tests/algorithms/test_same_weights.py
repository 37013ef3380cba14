"""The number of workers, the engine, and workers that are killed have no influence on a single bit of the weights."""

import pytest
from learning_envs import DiesOnce, Walk

from shoal import runtime
from shoal.algorithms import PPO
from shoal.rl import Callback

SETTINGS = {
    "n_envs": 12,
    "group_size": 3,
    "n_steps": 32,
    "batch_size": 64,
    "n_epochs": 4,
    "learning_rate": 0.003,
    "seed": 5,
}


def train(workers, env="CartPole-v1", callbacks=(), **changes):
    settings = {"preset": "none", **SETTINGS, "workers": workers, **changes}
    with PPO(env, **settings) as ppo:
        return ppo.train(4 * 12 * settings["n_steps"], callbacks=callbacks).weights_sha256


def serially(seed):
    runtime.shutdown()
    runtime.init(engine="serial")
    digest = train(1, seed=seed)
    runtime.shutdown()
    return digest


class Kill(Callback):
    """Kills actors of the training after its second iteration; they come back."""

    def __init__(self, choose):
        self.choose = choose

    def on_iteration_end(self, training, report):
        if report.iteration == 2:
            runtime.kill(self.choose(training), no_restart=False)


@pytest.fixture(scope="module")
def expected():
    """Hash of the weights with one worker on the serial engine."""
    return serially(seed=5)


def test_another_seed_gives_other_weights(expected):
    assert serially(seed=6) != expected


@pytest.mark.parametrize(
    "workers", [1, 3, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_any_number_of_workers_on_any_engine(engine, expected, workers):
    assert train(workers) == expected


def test_actors_killed_between_iterations(engine, expected):
    assert train(2, callbacks=[Kill(lambda training: training.actors.workers.actors[0])]) == expected
    assert train(2, callbacks=[Kill(lambda training: training.actors.learner.actor)]) == expected


def test_a_worker_that_dies_in_the_middle_of_a_rollout(processes, tmp_path):
    (tmp_path / "exists").touch()
    calm, killed = (
        train(2, DiesOnce, n_steps=64, env_kwargs={"marker": str(tmp_path / name)})
        for name in ("exists", "is made at death")
    )
    assert (tmp_path / "is made at death").exists()
    assert calm == killed == train(3, Walk, n_steps=64)


def test_a_resumed_training(engine, expected, tmp_path):
    with PPO("CartPole-v1", preset="none", **SETTINGS, workers=2) as first:
        first.train(2 * 12 * 32)
        first.save(tmp_path / "run")
    with PPO.load(tmp_path / "run", workers=3) as second:
        assert second.train(2 * 12 * 32).weights_sha256 == expected
