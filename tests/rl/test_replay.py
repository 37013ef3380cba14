import numpy as np
import pytest

from shoal import runtime
from shoal.envs import stream
from shoal.rl import Batch, Column, ReplayBuffer
from shoal.rl.data.replay import PRIORITY_EPSILON, replay_nbytes, transition_columns
from shoal.rl.data.sum_tree import SumTree

COLUMNS = transition_columns(Column(), Column((), np.int64))


@pytest.fixture(autouse=True)
def _serial():
    runtime.init(engine="serial")


def transitions(*numbers):
    values = np.array(numbers, np.float32)
    return Batch({name: values.astype(column.dtype) for name, column in COLUMNS.items()})


def made(capacity=4, **options):
    return ReplayBuffer(COLUMNS, capacity, gamma=0.9, **options)


def held(buffer):
    return sorted(buffer.newest(buffer.size)["rewards"].tolist())


def test_the_oldest_go_first():
    buffer = made()
    buffer.write(transitions(0, 1, 2))
    assert (buffer.size, buffer.inserted) == (3, 3)
    buffer.write(transitions(3, 4))
    assert held(buffer) == [1, 2, 3, 4]
    assert buffer.newest(2)["rewards"].tolist() == [3, 4]
    buffer.write(transitions(*range(10, 20)))
    assert buffer.newest(9)["rewards"].tolist() == [16, 17, 18, 19]
    assert buffer.inserted == 15


def test_uniform_draws_are_uniform_and_come_from_the_stream():
    buffer = made()
    buffer.write(transitions(0, 1, 2, 3))
    drawn = buffer.sample(stream(0, "replay").random(4000))
    counts = np.bincount(drawn["actions"])
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3  # χ² of 3 degrees of freedom, p = 0.001
    assert (drawn["weights"] == 1).all()
    assert drawn["rewards"].tolist() == drawn["indices"].tolist()
    again = buffer.sample(stream(0, "replay").random(4000))
    np.testing.assert_array_equal(drawn["indices"], again["indices"])


def test_an_empty_buffer_says_so():
    with pytest.raises(ValueError, match="empty"):
        made().sample(stream(0, "replay").random(1))


def test_priorities_decide_how_often_and_weights_correct_it():
    buffer = made(alpha=0.5)
    buffer.write(transitions(0, 1, 2, 3))
    buffer.set_errors(np.array([0, 1, 2, 3]), np.array([1.0, -4.0, 9.0, 0.0]))  # p = 1, 2, 3 and √ε
    total = 6 + 1e-3
    drawn = buffer.sample(stream(0, "replay").random(6000), beta=1.0)
    counts = np.bincount(drawn["actions"], minlength=4)
    np.testing.assert_allclose(counts[:3] / 6000, [1 / total, 2 / total, 3 / total], atol=0.01)
    # weights (4 P(i))^−1 over the largest, which is that of the rarest drawn
    weights = {int(action): float(weight) for action, weight in zip(drawn["actions"], drawn["weights"], strict=True)}
    assert weights[1] / weights[0] == pytest.approx(1 / 2, rel=1e-5)
    assert weights[2] / weights[0] == pytest.approx(1 / 3, rel=1e-5)
    assert max(weights.values()) == 1
    halved = buffer.sample(stream(1, "replay").random(600), beta=0.5)
    some = {int(action): float(weight) for action, weight in zip(halved["actions"], halved["weights"], strict=True)}
    assert some[1] / some[0] == pytest.approx(2**-0.5, rel=1e-5)


def test_the_exponent_is_applied_once():
    buffer = made(alpha=0.5)
    buffer.write(transitions(0, 1))
    buffer.set_errors(np.array([0]), np.array([16.0]))
    assert buffer.state()["priorities"][0] == pytest.approx((16 + PRIORITY_EPSILON) ** 0.5)


def test_a_new_transition_has_the_largest_priority_seen():
    buffer = made(alpha=1.0)
    buffer.write(transitions(0, 1))
    assert buffer.state()["priorities"].tolist() == [1, 1]
    buffer.set_errors(np.array([0, 1]), np.array([0.25, 0.125]))
    buffer.write(transitions(2))
    assert buffer.state()["priorities"].tolist() == pytest.approx([0.25, 0.125, 0.25], rel=1e-4)
    buffer.set_errors(np.array([2]), np.array([7.0]))
    buffer.write(transitions(3, 4))  # the second overwrites slot 0
    assert buffer.state()["priorities"].tolist() == pytest.approx([7, 0.125, 7, 7], rel=1e-4)


def test_a_state_and_the_newest_transitions_bring_it_back():
    buffer = made(alpha=0.6)
    for start in range(0, 12, 3):
        buffer.write(transitions(start, start + 1, start + 2))
    buffer.set_errors(np.array([1, 2]), np.array([3.0, 0.1]))
    state, pieces = buffer.state(), [buffer.newest(4).take(slice(0, 1)), buffer.newest(3)]
    other = made(alpha=0.6)
    other.load(state, pieces)
    for seed in range(3):
        first, again = (each.sample(stream(seed, "replay").random(16)) for each in (buffer, other))
        for name in first:
            np.testing.assert_array_equal(first[name], again[name], err_msg=name)
    with pytest.raises(ValueError, match="needs 12 transitions back, but gets 3"):
        made(alpha=0.6).load(state, pieces[1:])


def test_bytes_are_known_beforehand():
    columns = transition_columns(Column((84, 84), np.uint8), Column((2,)))
    assert replay_nbytes(columns, 10) == 10 * (2 * 84 * 84 + 8 + 4 + 4)
    for size in (1, 2, 3, 9, 16, 17):
        tree = SumTree(size)
        assert tree.nbytes == SumTree.nbytes_of(size) == sum(level.nbytes for level in tree._levels)
    buffer = made(capacity=10, alpha=0.6)
    buffer.write(transitions(1, 2, 3))
    assert buffer.nbytes == 3 * (4 + 8 + 4 + 4 + 4) + 8 * 31


def test_sums_lie_above_their_weights():
    tree = SumTree(5)
    tree.set(np.array([0, 1, 4]), np.array([1.0, 2.0, 4.0]))
    assert tree.total == 7
    assert tree.find(np.array([0.0, 0.99, 1.0, 2.99, 3.0, 6.99])).tolist() == [0, 0, 1, 1, 4, 4]
    tree.set(np.array([1, 1]), np.array([9.0, 0.5]))
    assert tree.weights.tolist() == [1, 0.5, 0, 0, 4]
    assert tree.find(np.array([1.5])).tolist() == [4]


def test_sums_do_not_depend_on_the_order_in_which_they_were_set():
    weights = stream(3, "weights").random(37)
    first, second = SumTree(37), SumTree(37)
    first.set(np.arange(37), weights)
    for index in stream(4, "order").permutation(37):
        second.set(np.array([index]), weights[[index]])
    assert first.total == second.total
    points = stream(5, "points").random(200) * first.total
    np.testing.assert_array_equal(first.find(points), second.find(points))
    np.testing.assert_array_equal(first.find(points), np.searchsorted(np.cumsum(weights), points, side="right"))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 8, 9])
def test_points_at_the_very_end_find_the_last_weight_there_is(size):
    tree = SumTree(size)
    tree.set(np.arange(size), np.full(size, 0.1))
    ends = np.array([np.nextafter(tree.total, 0), tree.total, np.nextafter(tree.total, 2)])  # rounding may go too far
    assert tree.find(ends).tolist() == [size - 1] * 3
    for last in range(size - 1, 0, -1):
        tree.set(np.array([last]), np.zeros(1))
        assert tree.find(np.array([tree.total]))[0] == last - 1


def test_of_a_transition_drawn_twice_the_last_error_is_its_priority():
    buffer = made(alpha=1.0)
    buffer.write(transitions(0, 1, 2))
    buffer.set_errors(np.array([1, 0, 1]), np.array([8.0, 2.0, -0.5]))
    assert buffer.state()["priorities"].tolist() == pytest.approx([2, 0.5, 1], rel=1e-4)
    buffer.write(transitions(3))
    assert buffer.state()["priorities"][3] == pytest.approx(8)  # the largest seen, whatever came after


def test_priorities_of_what_is_overwritten_are_gone():
    buffer = made(capacity=3, alpha=1.0)
    buffer.write(transitions(0, 1, 2))
    buffer.set_errors(np.array([0, 1, 2]), np.array([5.0, 1.0, 1.0]))
    buffer.write(transitions(3, 4))
    assert buffer.state()["priorities"].tolist() == pytest.approx([5, 5, 1], rel=1e-4)
    drawn = buffer.sample(stream(0, "replay").random(300))
    assert set(drawn["rewards"].tolist()) == {2, 3, 4}
