"""A replay buffer in shards is one replay buffer: the same transitions, the same distribution, the same state."""

import numpy as np
import pytest

from shoal import runtime
from shoal.rl import Batch, Column, ReplayBuffer, Rollout
from shoal.rl.data.replay import transition_columns
from shoal.rl.data.transitions import TransitionMaker
from shoal.rl.learn.lost import StateLostError
from shoal.rl.learn.sharded_replay import ShardedReplay

COLUMNS = transition_columns(Column((2,)), Column((), np.int64))


def transitions(count, first=0, errors=None):
    numbers = np.arange(first, first + count)
    observations = np.stack([numbers, -numbers], 1).astype(np.float32)
    columns = {
        "observations": observations, "actions": numbers, "rewards": numbers.astype(np.float32),
        "next_observations": observations + 1, "discounts": np.full(count, 0.9, np.float32),
    }  # fmt: skip
    return Batch(columns | ({} if errors is None else {"errors": np.asarray(errors, np.float32)}))


@pytest.fixture
def serial():
    runtime.init(engine="serial")


def both(capacity=12, shards=3):
    one = ReplayBuffer(COLUMNS, capacity, gamma=0.9, n_step=2, alpha=0.5)
    return one, ShardedReplay(COLUMNS, capacity, shards=shards, gamma=0.9, n_step=2, alpha=0.5)


def test_it_holds_what_one_buffer_does(serial):
    one, sharded = both()
    for first, count in ((0, 5), (5, 4), (9, 7), (16, 1), (17, 20)):
        for replay in (one, sharded):
            replay.write(transitions(count, first, errors=np.arange(first, first + count) % 7))
        assert (sharded.size, sharded.inserted) == (one.size, one.inserted)
        np.testing.assert_array_equal(sharded.rewards, one.rewards)
        for name, column in one.newest(9).items():
            np.testing.assert_array_equal(sharded.newest(9)[name], column)
    for replay in (one, sharded):
        replay.set_errors(np.array([3, 11, 4]), np.array([2.0, -5.0, 0.0]))
    np.testing.assert_array_equal(sharded.state()["priorities"], one.state()["priorities"])
    assert sharded.state()["largest"] == one.state()["largest"]


def test_draws_are_those_of_one_buffer_in_distribution(serial):
    one, sharded = both()
    errors = np.array([9, 1, 1, 4, 0, 2, 25, 1, 1, 1, 3, 2])
    for replay in (one, sharded):
        replay.write(transitions(12, errors=errors))
    expected = one.priorities.weights / one.priorities.total
    counts, rounds, rows = np.zeros(12), 50, 64
    for seed in range(rounds):
        drawn = sharded.sample(np.random.default_rng(seed).random(rows), beta=0.7)
        indices = drawn["indices"]
        np.testing.assert_array_equal(drawn["actions"], indices)
        raw = (12 * expected[indices]) ** -0.7
        np.testing.assert_allclose(drawn["weights"], raw / raw.max(), rtol=1e-5)
        np.add.at(counts, indices, 1)
    chi_squared = ((counts - rounds * rows * expected) ** 2 / (rounds * rows * expected)).sum()
    assert chi_squared < 31.3  # 11 degrees of freedom: a fair draw exceeds it once in a thousand times
    assert counts[6] > counts[0] > counts[1] > counts[4]


def rollout(group, observations, values):
    """Three steps of one environment with reward 1, acted on with these values and next values."""
    steps = {
        "observations": np.array(observations, np.float32).reshape(3, 1, 2), "actions": np.zeros((3, 1), np.int64),
        "rewards": np.ones((3, 1), np.float32), "terminations": np.zeros((3, 1), np.bool_),
        "truncations": np.zeros((3, 1), np.bool_), "values": np.array(values[:3], np.float32)[:, np.newaxis],
        "next_values": np.array(values[1:], np.float32)[:, np.newaxis],
    }  # fmt: skip
    finals = {"rows": np.array([2]), "observations": np.array([observations[-1]], np.float32) + 1}
    return Rollout(Batch(steps, 2), Batch(finals), 0, group=group)


def test_windows_of_groups_are_kept_apart_and_first_priorities_are_errors_of_those_who_acted(serial):
    _, sharded = both()
    first, second = ([[group + t, group] for t in range(3)] for group in (10, 20))
    sharded.insert(rollout(1, first, [5, 6, 7, 8]))
    sharded.insert(rollout(2, second, [1, 1, 1, 1]))
    assert sharded.inserted == 4  # of each group's three windows of two steps, the last is not complete
    newest = sharded.newest(4)
    np.testing.assert_allclose(newest["observations"][:, 0], [10, 11, 20, 21])
    errors = [1.9 + 0.81 * 7 - 5, 1.9 + 0.81 * 8 - 6, 1.9 + 0.81 - 1, 1.9 + 0.81 - 1]
    np.testing.assert_allclose(sharded.state()["priorities"], np.abs(errors) ** 0.5, rtol=1e-5)
    following = [[13 + t, 10] for t in range(3)]
    sharded.insert(rollout(1, following, [8, 1, 1, 1]))
    np.testing.assert_allclose(sharded.newest(3)["observations"][:, 0], [12, 13, 14])


def test_a_rollout_that_was_dropped_leaves_a_gap_that_nothing_crosses():
    maker = TransitionMaker(gamma=0.9, n=2)
    maker.transitions(rollout(0, [[0, 0], [1, 0], [2, 0]], [0, 0, 0, 0]))
    made = maker.transitions(rollout(0, [[7, 0], [8, 0], [9, 0]], [0, 0, 0, 0]))
    # step 2 is cut off where its rollout ended: one reward, and the value of the observation there, (3, 1)
    np.testing.assert_allclose(made["rewards"], [1, 1.9, 1.9])
    np.testing.assert_allclose(made["discounts"], [0.9, 0.81, 0.81])
    assert made["next_observations"][0].tolist() == [3, 1]


def test_its_state_is_of_no_number_of_shards(serial):
    _, sharded = both(shards=3)
    sharded.write(transitions(20, errors=np.arange(20)))
    sharded.insert(rollout(4, [[0, 0], [1, 0], [2, 0]], [0, 0, 0, 0]))
    state = sharded.state()
    other = ShardedReplay(COLUMNS, 12, shards=2, gamma=0.9, n_step=2, alpha=0.5)
    other.load(state, [sharded.newest(12)])
    np.testing.assert_array_equal(other.state()["priorities"], state["priorities"])
    assert (other.inserted, other.size) == (22, 12)
    for replay in (sharded, other):
        replay.insert(rollout(4, [[3, 1], [4, 0], [5, 0]], [0, 0, 0, 0]))
    for name, column in sharded.newest(12).items():
        np.testing.assert_array_equal(other.newest(12)[name], column)


@pytest.mark.slow
def test_a_shard_that_dies_takes_the_learners_state_along(native):
    _, sharded = both()
    sharded.write(transitions(6, errors=np.ones(6)))
    sharded.sample(np.random.default_rng(0).random(4))
    runtime.kill(sharded._shards[1])
    sharded.set_errors(np.arange(6), np.ones(6))
    with pytest.raises(StateLostError, match="a replay shard has died"):
        sharded.sample(np.random.default_rng(0).random(4))
