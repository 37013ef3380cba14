import dataclasses

import numpy as np
import pytest

from shoal import runtime
from shoal.rl import Trajectory


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def make(steps, environments, fill):
    trajectory = Trajectory.allocate(
        steps,
        environments,
        observation_shape=(3,),
        observation_dtype=np.dtype(np.float32),
        action_shape=(),
        action_dtype=np.dtype(np.int64),
    )
    for item in dataclasses.fields(trajectory):
        getattr(trajectory, item.name)[:] = fill
    return trajectory


def test_groups_lie_side_by_side_in_the_order_given():
    joined = Trajectory.concatenate([make(4, 2, 1), make(4, 3, 2)])
    assert joined.shape == (4, 5)
    assert joined.observations.shape == (4, 5, 3)
    np.testing.assert_array_equal(joined.rewards, np.tile(np.float32([1, 1, 2, 2, 2]), (4, 1)))


def test_flat_rows_go_through_time_first():
    trajectory = make(2, 3, 0)
    trajectory.actions[:] = [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(trajectory.flat("actions"), [1, 2, 3, 4, 5, 6])
    assert trajectory.flat("observations").shape == (6, 3)


def test_groups_that_do_not_fit_are_named_with_their_shapes():
    with pytest.raises(ValueError, match=r"'observations' has shapes \[\(4, 2, 3\), \(5, 2, 3\)\]"):
        Trajectory.concatenate([make(4, 2, 0), make(5, 2, 0)])
