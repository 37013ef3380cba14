"""What is an observation, and how the rest is refused."""

import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs import as_batch, codec, describe

BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)
WIDE = spaces.Box(-np.inf, np.inf, (1,), np.float32)
DOUBLES = spaces.Box(-np.inf, np.inf, (1,), np.float64)
PIXELS = spaces.Box(0, 255, (2, 2), np.uint8)


@pytest.mark.parametrize(
    ("space", "data", "rows", "single"),
    [
        (BOX, [0, 0.5, 1, 2], 1, True),
        (BOX, np.zeros(4), 1, True),
        (BOX, np.zeros((3, 4), np.float32), 3, False),
        (BOX, np.zeros((0, 4)), 0, False),
        (PIXELS, [[0, 255], [1, 2]], 1, True),
        (PIXELS, [[[0, 255], [1, 2]]], 1, False),
        (spaces.Discrete(3), 2, 1, True),
        (spaces.Discrete(3), [0, 1, 2, 2], 4, False),
        (spaces.Discrete(3, start=5), 7, 1, True),
        (spaces.MultiDiscrete([2, 3]), [1, 2], 1, True),
        (spaces.MultiBinary(3), [[0, 1, 1]], 1, False),
    ],
)
def test_accepted(space, data, rows, single):
    batch, alone = as_batch(space, data)
    assert batch.shape == (rows, *space.shape)
    assert batch.dtype == space.dtype
    assert alone is single


@pytest.mark.parametrize(
    ("space", "data", "message"),
    [
        (BOX, [1, 2, 3], r"of shape \(3,\); .* wants \(4,\), or \(batch, 4\)"),
        (BOX, np.zeros((2, 2, 4)), r"of shape \(2, 2, 4\); .* wants \(4,\)"),
        (BOX, 1.0, r"of shape \(\); .* wants \(4,\)"),
        (BOX, [[1, 2, 3, 4], [1, 2]], "ragged"),
        (BOX, ["a", "b", "c", "d"], "holds text; .* wants numbers"),
        (BOX, {"a": 1}, "holds values of type object"),
        (BOX, None, "holds values of type object"),
        (WIDE, [[1e39], [0]], r"observation\[0, 0\] = 1e\+39; .* wants a finite number"),
        (DOUBLES, [-1e39], r"observation\[0\] = -1e\+39; .* wants a finite number"),
        (BOX, [10**400] * 4, "holds values of type object"),
        (BOX, [0, 0, float("nan"), 0], r"observation\[2\] = nan; .* wants a finite number"),
        (BOX, [[0] * 4, [0, float("inf"), 0, 0]], r"observation\[1, 1\] = inf"),
        (PIXELS, [[0, 256], [0, 0]], r"observation\[0, 1\] = 256; .* wants an integer from 0 to 255"),
        (PIXELS, [[0, -1], [0, 0]], "= -1; .* wants an integer from 0 to 255"),
        (PIXELS, [[0, 0.5], [0, 0]], "= 0.5; .* wants an integer"),
        (spaces.Discrete(3), 3, "observation = 3; .* wants an integer from 0 to 2"),
        (spaces.Discrete(3, start=5), [4], r"observation\[0\] = 4; .* wants an integer from 5 to 7"),
        (spaces.Discrete(3), [[1]], r"of shape \(1, 1\); .* wants \(\), or \(batch,\)"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], r"observation\[1\] = 3; .* wants an integer from 0 to 2"),
        (spaces.MultiBinary(3), [0, 2, 0], r"observation\[1\] = 2; .* wants an integer from 0 to 1"),
    ],
)
def test_refused(space, data, message):
    with pytest.raises(ValueError, match=message):
        as_batch(space, data)


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (WIDE, np.full(1, np.inf, np.float32), "observation[0] = inf; observation_space {} wants a finite number"),
        (DOUBLES, np.full(1, 1e39), "observation[0] = 1e+39; observation_space {} wants a finite number"),
        (
            spaces.Box(0, np.inf, (2,)),
            np.float32([0, -1]),
            "observation[1] = -1.0; observation_space {} wants a finite number ≥ 0.0",
        ),
        (
            spaces.Box(-np.inf, 5, ()),
            np.array(6, np.float32),
            "observation = 6.0; observation_space {} wants a finite number ≤ 5.0",
        ),
        (
            spaces.Box(0, 9, (2, 2), np.uint8),
            np.full((2, 2), 255, np.uint8),
            "observation[0, 0] = 255; observation_space {} wants an integer from 0 to 9 (4 values are outside)",
        ),
        (WIDE, np.zeros(1), "an observation of dtype float64; observation_space {} wants float32"),
        (WIDE, np.zeros(2, np.float32), "an observation of shape (2,); observation_space {} wants (1,)"),
        (WIDE, 0.0, "an observation of type float; wanted a numpy array: np.array(observation, dtype=np.float32)"),
        (
            spaces.Discrete(3, start=2),
            5,
            "observation = 5; observation_space {} wants an integer from 2 to 4",
        ),
        (
            spaces.MultiDiscrete([2, 3]),
            np.array([0, -1]),
            "observation[1] = -1; observation_space {} wants an integer from 0 to 2",
        ),
    ],
)
def test_what_is_wrong_with_an_observation(space, observation, message):
    assert message.format(describe(space)) in str(codec(space).problem(observation))


@pytest.mark.parametrize(
    "space",
    [
        BOX,
        WIDE,
        DOUBLES,
        PIXELS,
        spaces.Box(-np.inf, np.inf, (2,), np.float16),
        spaces.Box(0, 1, (), np.bool_),
        spaces.Discrete(3, start=-5),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary((2, 2)),
    ],
)
def test_what_a_space_draws_lies_within_its_limits(space):
    low, high = codec(space).limits()
    assert low.shape == high.shape == space.shape
    assert np.isfinite(low.astype(np.float32)).all()
    assert np.isfinite(high.astype(np.float32)).all()
    space.seed(1)
    drawn = [space.sample() for _ in range(50)]
    assert all(codec(space).problem(one) is None for one in drawn)
    assert ((np.array(drawn) >= low) & (np.array(drawn) <= high)).all()
