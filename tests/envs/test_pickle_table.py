"""Spaces in pickles of environments are there once, and as they were; so are the seeds of generators."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from shoal.envs.pickle_table import PickleTable
from shoal.envs.ways_back import load_snapshot, snapshot


class Spacious(gymnasium.Env):
    """Its observation space has a note of its own, and its action space may have drawn."""

    def __init__(self):
        self.observation_space = Box(0, 255, (84, 84, 4), np.uint8)
        self.action_space = Discrete(5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.low, {}


def test_spaces_are_pickled_once_unless_they_hold_more_than_bounds():
    envs = [Spacious() for _ in range(8)]
    envs[1].observation_space.note = "mine"
    envs[2].action_space.seed(3)
    envs[3].action_space = Discrete(5, start=2)
    envs[4].action_space.n = np.int64(4)
    data = snapshot(envs, by_value=False, table=PickleTable())
    assert len(data) < 3 * 4 * envs[0].observation_space.low.nbytes, "bounds and where there are any, of two in all"
    found = load_snapshot(data, envs)
    assert [env.observation_space for env in found] == [env.observation_space for env in envs]
    assert [env.action_space for env in found] == [env.action_space for env in envs]
    assert found[1].observation_space.note == "mine"
    assert not hasattr(found[0].observation_space, "note")
    assert found[2].action_space.sample() == envs[2].action_space.sample()
    assert found[0].observation_space is not found[5].observation_space


def test_a_generator_goes_on_and_has_the_same_children():
    env = Spacious()
    env.reset(seed=5)
    env.np_random.spawn(2)
    (found,) = load_snapshot(snapshot([env], by_value=False), [env])
    assert found.np_random.random() == env.np_random.random()
    mine, other = (each.np_random.spawn(1)[0] for each in (found, env))
    assert mine.random() == other.random()
