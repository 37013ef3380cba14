"""Spaces of a policy and of an environment, compared."""

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from shoal.envs import SpaceMismatchError, check_same_spaces

BOX = Box(-1, 1, (4,))


def spaces(observation=BOX, action=None):
    return SimpleNamespace(observation_space=observation, action_space=action or Discrete(2))


@pytest.mark.parametrize(
    ("role", "policy", "env"),
    [
        ("observation", BOX, Box(-1, 1, (2,))),
        ("observation", BOX, Box(-1, 1, (4,), np.float64)),
        ("observation", Box(0, 1, (2, 2, 1)), Box(0, 255, (2, 2, 1), np.uint8)),
        ("observation", Discrete(4), Discrete(5)),
        ("observation", Discrete(4), Discrete(4, start=1)),
        ("observation", MultiBinary(4), BOX),
        ("action", Discrete(2), Discrete(3)),
        ("action", Discrete(2), Discrete(2, start=-1)),
        ("action", MultiDiscrete([2, 3]), MultiDiscrete([3, 2])),
        ("action", Box(-1, 1, (1,)), Box(-2, 2, (1,))),
        ("action", Box(-1, 1, (1,)), Discrete(2)),
    ],
)
def test_spaces_that_differ_are_both_named(role, policy, env):
    with pytest.raises(SpaceMismatchError) as caught:
        check_same_spaces(spaces(**{role: policy}), spaces(**{role: env}), "Mine-v0")
    assert str(caught.value).startswith(f"environment 'Mine-v0' has the {role} space ")
    names = str(caught.value)
    assert type(policy).__name__ in names
    assert type(env).__name__ in names


def test_spaces_that_fit():
    check_same_spaces(spaces(), spaces(Box(-5, 5, (4,))), "Mine-v0")
    check_same_spaces(spaces(MultiDiscrete([2, 3])), spaces(MultiDiscrete([2, 3])), "Mine-v0")
    check_same_spaces(object(), spaces(), "Mine-v0")
