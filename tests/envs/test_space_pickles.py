"""Spaces in pickles of environments: once, and as they are."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from shoal.envs.space_pickles import SpacePickles
from shoal.envs.ways_back import load_snapshot, snapshot


class Spacious(gymnasium.Env):
    """Its observation space has a note of its own, and its action space may have drawn."""

    def __init__(self):
        self.observation_space = Box(0, 255, (84, 84, 4), np.uint8)
        self.action_space = Discrete(5)


def test_spaces_are_pickled_once_unless_they_hold_more_than_bounds():
    envs = [Spacious() for _ in range(8)]
    envs[1].observation_space.note = "mine"
    envs[2].action_space.seed(3)
    envs[3].action_space = Discrete(5, start=2)
    envs[4].action_space.n = np.int64(4)
    data = snapshot(envs, by_value=False, spaces=SpacePickles())
    assert len(data) < 3 * 4 * envs[0].observation_space.low.nbytes, "bounds and where there are any, of two in all"
    found = load_snapshot(data, envs)
    assert [env.observation_space for env in found] == [env.observation_space for env in envs]
    assert [env.action_space for env in found] == [env.action_space for env in envs]
    assert found[1].observation_space.note == "mine"
    assert not hasattr(found[0].observation_space, "note")
    assert found[2].action_space.sample() == envs[2].action_space.sample()
    assert found[0].observation_space is not found[5].observation_space
