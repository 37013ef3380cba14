import json

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from shoal.envs import check_supported, describe, space_from_json, space_to_json, to_env_actions
from shoal.runtime import InputError

SPACES = [
    Box(-1, 1, (3,), np.float32),
    Box(np.array([-np.inf, 0.1]), np.array([0.3, np.inf]), dtype=np.float64),
    Box(0, 255, (4, 5, 3), np.uint8),
    Box(-np.inf, np.inf, (), np.float32),
    Discrete(4),
    Discrete(3, start=-5),
    MultiDiscrete([2, 3]),
    MultiDiscrete([[2, 3], [4, 5]], start=[[1, 1], [0, -1]]),
    MultiBinary(4),
    MultiBinary([2, 3]),
]


@pytest.mark.parametrize("space", SPACES, ids=describe)
def test_json_round_trip_is_exact(space):
    text = json.dumps(space_to_json(space), allow_nan=False)
    again = space_from_json(json.loads(text))
    assert again == space
    assert again.dtype == space.dtype
    assert again.shape == space.shape
    if isinstance(space, Box):
        assert again.low.tobytes() == space.low.tobytes()
        assert again.high.tobytes() == space.high.tobytes()


def test_json_of_images_is_short():
    assert len(json.dumps(space_to_json(Box(0, 255, (210, 160, 3), np.uint8)))) < 200


@pytest.mark.parametrize("broken", [{}, {"type": "Box"}, {"type": "Dict"}, {"type": "Discrete", "n": "x", "start": 0}])
def test_damaged_json_is_refused(broken):
    with pytest.raises(InputError, match="not the description of a space"):
        space_from_json(broken)


def test_describe():
    assert [describe(space) for space in SPACES[:8]] == [
        "Box(3,) float32 in [-1, 1]",
        "Box(2,) float64 in [-inf…, inf…]",
        "Box(4, 5, 3) uint8 in [0, 255]",
        "Box() float32 in [-inf, inf]",
        "Discrete(4)",
        "Discrete(3, start=-5)",
        "MultiDiscrete([2, 3])",
        "MultiDiscrete([[2, 3], [4, 5]], start=[[1, 1], [0, -1]])",
    ]


@pytest.mark.parametrize("space", SPACES, ids=describe)
def test_supported_observations(space):
    check_supported(space, "observation")


@pytest.mark.parametrize(
    ("space", "role", "text"),
    [
        (Dict({"a": Text(5)}), "observation", r"observation space Text.* is not supported .*encode the text"),
        (Tuple([Box(0, 5, (2,), np.int32)]), "action", "dtype int32, but continuous actions are floats"),
        (Dict({}), "observation", r"observation space Dict\(\) holds nothing"),
        (Text(5), "observation", "Text.* is not supported .*encode the text"),
        (None, "observation", r"observation_space is None of type NoneType.*set self.observation_space"),
        (3, "action", r"action_space is 3 of type int, not a gymnasium space"),
        (Box(0, 1, (2, 0)), "observation", r"its shape \(2, 0\) has a zero"),
        (Box(0, 5, (2,), np.int32), "action", "dtype int32, but continuous actions are floats"),
        (MultiDiscrete([[2, 3], [4, 5]]), "action", r"has 2 dimensions.*MultiDiscrete\(\[2, 3, 4, 5\]\)"),
    ],
)
def test_unsupported(space, role, text):
    with pytest.raises(InputError, match=text):
        check_supported(space, role)


def test_discrete_actions_get_their_offset():
    actions = to_env_actions(Discrete(3, start=5), np.array([0, 2, 1]))
    assert actions.tolist() == [5, 7, 6]
    assert actions.dtype == np.int64
    assert to_env_actions(Discrete(3, start=5), np.array(2)) == 7
    assert to_env_actions(Discrete(3), np.array([0, 2], np.int32)).tolist() == [0, 2]


def test_multi_discrete_actions_get_their_offsets():
    space = MultiDiscrete([2, 3], start=[10, -1])
    assert to_env_actions(space, np.array([[0, 0], [1, 2]])).tolist() == [[10, -1], [11, 1]]


def test_box_actions_are_clipped_and_cast():
    space = Box(np.array([-1, 0], np.float32), np.array([1, 2], np.float32))
    policy_actions = np.array([[-3.0, 0.5], [0.25, 9.0]])
    actions = to_env_actions(space, policy_actions)
    assert actions.tolist() == [[-1.0, 0.5], [0.25, 2.0]]
    assert actions.dtype == np.float32
    assert policy_actions[0, 0] == -3.0
    assert to_env_actions(space, np.array([5.0, 5.0], np.float32)).tolist() == [1.0, 2.0]


def test_box_actions_are_always_a_copy():
    space = Box(-1, 1, (1,), np.float32)
    actions = np.zeros((2, 1), np.float32)
    assert not np.shares_memory(to_env_actions(space, actions), actions)


def test_multi_binary_actions():
    actions = to_env_actions(MultiBinary(2), np.array([[0, 1]], np.int64))
    assert actions.tolist() == [[0, 1]]
    assert actions.dtype == np.int8
