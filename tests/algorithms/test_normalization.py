"""Normalized observations and rewards: part of the policy, the same for any number of workers."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from learning_envs import Parts

from shoal import runtime
from shoal.algorithms import ALGORITHMS, PPO
from shoal.rl import Policy, RunSettings
from shoal.runtime import InputError

SETTINGS = {"n_envs": 4, "group_size": 2, "preset": "none", "seed": 1, "normalize": "obs,reward"}
OWN = {
    "ppo": {"n_steps": 16, "batch_size": 32, "n_epochs": 2},
    "sac": {"learning_starts": 16, "train_freq": 4, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}},
}


class Scaled(gymnasium.Env):
    """Observations around 100, rewards in the thousands."""

    def __init__(self):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)

    def _observe(self):
        self._sign = int(self.np_random.integers(2))
        return np.array([100 + self._sign, 50], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._observe(), {}

    def step(self, action):
        reward = 1000.0 * (action == self._sign)
        self._step += 1
        return self._observe(), reward, self._step == 8, False, {}


@pytest.fixture
def serial():
    runtime.shutdown()
    runtime.init(engine="serial")
    yield
    runtime.shutdown()


def test_statistics_are_those_of_the_rollouts_and_travel_with_the_policy(serial, tmp_path):
    with PPO(Scaled, **SETTINGS | OWN["ppo"]) as ppo:
        result = ppo.train(64)
        policy = ppo.policy
        ppo.save(tmp_path)
    mean, scale = policy.model.normalizer.means[0], policy.model.normalizer.scales[0]
    assert mean[1].item() == 50
    assert 100.2 < mean[0].item() < 100.8
    deviation = np.sqrt((mean[0].item() - 100) * (101 - mean[0].item()))  # of zeros and ones with that mean
    assert scale[0].item() == pytest.approx(1 / deviation, rel=1e-3)
    rows = policy.model.encode(np.array([[1e6, 50]], np.float32))
    assert rows.tolist() == [[10, 0]]  # clipped
    again = Policy.load(tmp_path)
    assert again.weights_sha256() == result.weights_sha256
    assert again.model.encode(np.array([[101, 50]], np.float32)).tolist()[0][0] == pytest.approx(
        float((101 - mean[0]) * scale[0]), rel=1e-5
    )
    assert result.episode_return_mean > 100  # rewards are counted as they are


@pytest.mark.slow
def test_the_policy_learns_what_is_far_from_zero(serial):
    settings = {"n_envs": 8, "n_steps": 32, "batch_size": 64, "learning_rate": 0.01, "gamma": 0.5, "preset": "none"}
    with PPO(Scaled, seed=0, normalize=("obs", "reward"), **settings) as ppo:
        assert ppo.train(6_000).episode_return_mean > 7000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_weights_do_not_depend_on_workers_or_on_a_resume(processes, name, tmp_path):
    def make(workers):
        return ALGORITHMS[name]("CartPole-v1", workers=workers, **SETTINGS | OWN[name])

    with make(1) as one:
        expected = one.train(192).weights_sha256
    with make(2) as two:
        assert two.train(192).weights_sha256 == expected
    if name == "ppo":
        with make(1) as first:
            first.train(64)
            first.save(tmp_path)
        with PPO.load(tmp_path) as second:
            assert second.train(128).weights_sha256 == expected


def test_images_choices_and_masks_are_left_alone(serial):
    with PPO(Parts, **SETTINGS | OWN["ppo"]) as ppo:
        ppo.train(64)
        assert list(ppo.policy.model.normalizer._index) == ["pair/0"]


def test_what_it_may_be():
    assert RunSettings(normalize="reward, obs").normalize == "obs,reward"
    assert RunSettings(normalize=()).normalize == "none"
    with pytest.raises(InputError, match=r"normalize is 'rewards', but must be obs, reward.*Did you mean 'reward'"):
        RunSettings(normalize="rewards")


def test_there_must_be_something_to_normalize(serial):
    with pytest.raises(InputError, match="has no vector of numbers"):
        PPO("FrozenLake-v1", **SETTINGS)
