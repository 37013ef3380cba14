"""What is taken for an observation, and how the rest is refused."""

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rl.serving.observations import as_batch

BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)
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
        (BOX, [1, 2, 3], r"has shape \(3,\); want \(4,\), or \(batch, 4\)"),
        (BOX, np.zeros((2, 2, 4)), r"has shape \(2, 2, 4\); want \(4,\)"),
        (BOX, 1.0, r"has shape \(\); want \(4,\)"),
        (BOX, [[1, 2, 3, 4], [1, 2]], "ragged"),
        (BOX, ["a", "b", "c", "d"], "holds text; want numbers"),
        (BOX, {"a": 1}, "holds values of type object"),
        (BOX, None, "holds values of type object"),
        (BOX, [0, 0, float("nan"), 0], r"observation\[2\] is nan; want a finite number"),
        (BOX, [[0] * 4, [0, float("inf"), 0, 0]], r"observation\[1, 1\] is inf"),
        (PIXELS, [[0, 256], [0, 0]], r"observation\[0, 1\] is 256; want an integer from 0 to 255"),
        (PIXELS, [[0, -1], [0, 0]], "is -1"),
        (PIXELS, [[0, 0.5], [0, 0]], "is 0.5; want an integer"),
        (spaces.Discrete(3), 3, "observation is 3; want an integer from 0 to 2"),
        (spaces.Discrete(3, start=5), [4], r"observation\[0\] is 4; want an integer from 5 to 7"),
        (spaces.Discrete(3), [[1]], r"has shape \(1, 1\); want \(\), or \(batch,\)"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], r"observation\[1\] is 3; want an integer from 0 to 2"),
        (spaces.MultiBinary(3), [0, 2, 0], r"observation\[1\] is 2; want an integer from 0 to 1"),
    ],
)
def test_refused(space, data, message):
    with pytest.raises(ValueError, match=message):
        as_batch(space, data)
