"""Whole learning runs on the native engine: minutes."""

import random
import threading

import psutil
import pytest
from learning_envs import TwoArms

from shoal.algorithms import PPO
from shoal.rl import Callback, evaluate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("seed", range(5))
def test_cartpole_is_solved(native, seed):
    with PPO("CartPole-v1", workers=2, seed=seed) as ppo:
        result = ppo.train(300_000, stop_return=475)
        assert result.solved
        assert result.timesteps < 150_000
        assert evaluate(ppo.policy, "CartPole-v1", episodes=20).episode_return_mean >= 475


@pytest.mark.parametrize("seed", range(2))
def test_pendulum_swings_up(native, seed):
    with PPO("Pendulum-v1", workers=2, seed=seed) as ppo:
        result = ppo.train(200_000)
        assert result.timesteps == 200_000
        assert result.episode_return_mean > -250


@pytest.mark.parametrize("seed", range(3))
def test_two_arms_are_told_apart_with_the_defaults(native, seed):
    """Stable-Baselines3's defaults do it in 20,000 steps; eight environments of 2,048 steps each did not in 60,000."""
    with PPO(TwoArms, workers=2, seed=seed) as ppo:
        assert ppo.run.n_envs * ppo.config.n_steps == 2048
        assert ppo.train(20_000).episode_return_mean > 9


class Chaos(Callback):
    """Kills a rollout worker or the learner, as a seeded generator chooses, once an iteration, up to 0.3 s after it has
    begun: more often would be faster than a busy machine starts them."""

    def __init__(self, seed):
        self.random, self.killed = random.Random(seed), 0

    def on_iteration_end(self, training, report):
        self.timer = threading.Timer(self.random.uniform(0, 0.3), self.kill)
        self.timer.start()

    def kill(self):
        children = psutil.Process().children(recursive=True)
        actors = [child for child in children if is_actor(child)]
        if actors:
            self.random.choice(actors).kill()
            self.killed += 1


def is_actor(process):
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return False
    return "RolloutWorker" in title or "Learner" in title


def test_random_kills_do_not_change_the_weights(native):
    with PPO("CartPole-v1", workers=2) as ppo:
        calm = ppo.train(40_000)
    chaos = Chaos(seed=1)
    with PPO("CartPole-v1", workers=3) as ppo:
        shaken = ppo.train(40_000, callbacks=chaos)
        chaos.timer.join()
    assert chaos.killed >= 5
    assert shaken.weights_sha256 == calm.weights_sha256
    assert shaken.episode_return_mean == calm.episode_return_mean
