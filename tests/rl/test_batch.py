import pickle

import numpy as np
import pytest

from shoal import runtime
from shoal.rl import Batch, Column, Rollout


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def batch(*leading, fill=0.0):
    columns = {"observations": {"image": Column((2, 2), np.uint8), "speed": Column((3,))}, "rewards": Column()}
    made = Batch.allocate(columns, *leading)
    made["observations"]["image"][:] = fill
    made["observations"]["speed"][:] = fill
    made["rewards"][:] = fill
    return made


def test_columns_are_trees_with_leading_axes_in_common():
    made = batch(4, 2)
    assert made.shape == (4, 2)
    assert made.rows == 8
    assert made["observations"]["image"].shape == (4, 2, 2, 2)
    assert made["observations"]["image"].dtype == np.uint8
    assert list(made) == ["observations", "rewards"]


def test_groups_lie_side_by_side_in_the_order_given():
    joined = Batch.side_by_side([batch(4, 2, fill=1), batch(4, 3, fill=2)])
    assert joined.shape == (4, 5)
    assert joined["observations"]["speed"].shape == (4, 5, 3)
    np.testing.assert_array_equal(joined["rewards"], np.tile(np.float32([1, 1, 2, 2, 2]), (4, 1)))


def test_flat_rows_go_through_time_first():
    made = Batch({"actions": np.array([[1, 2, 3], [4, 5, 6]]), "seen": (np.zeros((2, 3, 4)),)}, 2)
    assert made.flat()["actions"].tolist() == [1, 2, 3, 4, 5, 6]
    assert made.flat()["seen"][0].shape == (6, 4)
    assert made.flat().take(np.array([5, 0]))["actions"].tolist() == [6, 1]


def test_what_does_not_fit_is_named_with_its_shapes():
    with pytest.raises(ValueError, match=r"'observations' of the batches has shapes .*\(4, 2, 2, 2\).*\(5, 2, 2, 2\)"):
        Batch.side_by_side([batch(4, 2), batch(5, 2)])
    with pytest.raises(ValueError, match=r"'b/0' has leading axes \(3,\), column 'a' has \(2,\)"):
        Batch({"a": np.zeros(2), "b": (np.zeros(3),)})
    with pytest.raises(KeyError, match="no column 'reward', but observations, rewards"):
        batch(1)["reward"]


def test_a_batch_travels():
    again = pickle.loads(pickle.dumps(batch(2, 3, fill=7)))
    assert again.shape == (2, 3)
    assert again["observations"]["image"].max() == 7


def rollout(observations, ends, finals):
    """One whose observations, [T, N], say where they come from; `finals` are those after steps that end something."""
    observations = np.array(observations, np.float32)
    ends = np.array(ends)
    columns = {"observations": observations, "terminations": ends == "T", "truncations": ends == "U"}
    rows = np.array(sorted(finals), np.int64)
    kept = Batch({"rows": rows, "observations": np.array([finals[row] for row in rows], np.float32)})
    return Rollout(Batch(columns, 2), kept, 3)


def test_next_observations_are_those_of_the_episode_and_never_of_a_reset():
    # environment 0 goes 1 2 | 10; environment 1 goes 5 | 20 21: row 1 (t = 0, i = 1) ended at 99
    made = rollout([[1, 5], [2, 20], [10, 21]], [["", "T"], ["U", ""], ["", ""]], {1: 99, 2: 77, 4: 11, 5: 22})
    np.testing.assert_array_equal(made.next_observations(), [[2, 99], [77, 21], [11, 22]])


def test_rollouts_join_side_by_side_and_end_to_end():
    first = rollout([[1], [2]], [[""], ["T"]], {1: 50})
    second = rollout([[7, 8], [9, 10]], [["U", ""], ["", ""]], {0: 60, 2: 61, 3: 62})
    joined = Rollout.side_by_side([first, second])
    assert joined.shape == (2, 3)
    assert joined.finals["rows"].tolist() == [1, 3, 4, 5]
    np.testing.assert_array_equal(joined.next_observations(), [[2, 60, 10], [50, 61, 62]])
    again = Rollout.end_to_end([second, rollout([[30, 62]], [["", ""]], {0: 31, 1: 63})])
    np.testing.assert_array_equal(again.next_observations(), [[60, 10], [61, 62], [31, 63]])
