import numpy as np
import pytest

from shoal.rl import Batch, Rollout
from shoal.rl.data.transitions import TransitionMaker, n_step_sums


def column(*values, dtype=np.float32):
    return np.array(values, dtype)[:, np.newaxis]


def rollout(observations, rewards, ends, final):
    """One environment; `ends` marks each step with "T", "U" or " "; the observation after an end is its index + 100,
    after the last step it is `final`."""
    marks = np.array(list(ends))[:, np.newaxis]
    steps = Batch(
        {
            "observations": column(*observations),
            "actions": column(*range(len(rewards)), dtype=np.int64),
            "rewards": column(*rewards),
            "terminations": marks == "T",
            "truncations": marks == "U",
        },
        2,
    )
    rows = sorted({*np.flatnonzero(marks[:, 0] != " ").tolist(), len(rewards) - 1})
    after = [100.0 + row if ends[row] != " " else final for row in rows]
    return Rollout(steps, Batch({"rows": np.array(rows), "observations": np.array(after, np.float32)}), 0)


def sums(rewards, ends, n, gamma=0.5):
    marks = np.array(list(ends))[:, np.newaxis]
    found = n_step_sums(rewards=column(*rewards), terminations=marks == "T", ends=marks != " ", gamma=gamma, n=n)
    return [array[:, 0].tolist() for array in found]


def test_single_steps():
    rewards, discounts, last, complete = sums([1, 2, 3], " TU", 1)
    assert (rewards, discounts) == ([1, 2, 3], [0.5, 0, 0.5])
    assert last == [0, 1, 2]
    assert complete == [True] * 3


def test_three_steps_end_where_the_episode_does():
    # γ = ½; rewards 1 2 4 8 16; step 1 terminates, step 3 truncates: a truncation bootstraps with the γ^m of its length
    rewards, discounts, last, complete = sums([1, 2, 4, 8, 16], " T U ", 3)
    assert rewards == [1 + 1, 2, 4 + 4, 8, 16]
    assert discounts == [0, 0, 0.25, 0.5, 0.5]
    assert last == [1, 1, 3, 3, 4]
    assert complete == [True, True, True, True, False]


def test_a_window_is_complete_at_its_last_step():
    assert sums([1, 1, 1, 1], "    ", 2)[3] == [True, True, True, False]
    assert sums([1, 1, 1, 1], "    ", 3)[0] == [1.75, 1.75, 1.5, 1]
    assert sums([1, 1], "  ", 5)[3] == [False, False]
    assert sums([1, 1], " U", 5)[3] == [True, True]


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("cuts", [[], [1], [3, 4], [1, 2, 3, 4, 5, 6, 7]])
def test_how_the_steps_are_cut_into_rollouts_has_no_influence(n, cuts):
    ends = "  T  U   "
    observations = np.arange(9.0)
    rewards = 2.0 ** np.arange(9)
    maker, got = TransitionMaker(gamma=0.9, n=n), []
    for start, stop in zip([0, *cuts], [*cuts, 9], strict=True):
        part = rollout(observations[start:stop], rewards[start:stop], ends[start:stop], final=float(stop))
        # what is after an end does not depend on the cut
        finals = part.finals["observations"]
        finals[finals >= 100] += start
        got.append(maker.transitions(part))
    joined = Batch.end_to_end(got)
    (expected,) = [TransitionMaker(gamma=0.9, n=n).transitions(rollout(observations, rewards, ends, final=9.0))]
    order = np.argsort(joined["observations"], kind="stable")
    for name in expected:
        if name != "actions":
            np.testing.assert_array_equal(joined[name][order], expected[name], err_msg=name)


def test_an_episode_that_was_lost_between_two_rollouts_is_not_bridged():
    maker = TransitionMaker(gamma=0.5, n=3)
    first = maker.transitions(rollout([0, 1], [1, 1], "  ", final=2.0))
    assert first.rows == 0
    # the environment could not be put back: a new episode began at 50 instead of going on at 2
    second = maker.transitions(rollout([50, 51, 52], [8, 8, 8], "   ", final=53.0))
    assert second["observations"].tolist() == [0, 1, 50]
    assert second["rewards"].tolist() == [1.5, 1, 14]
    assert second["next_observations"].tolist() == [2, 2, 53]
    assert second["discounts"].tolist() == [0.25, 0.5, 0.125]


def test_environments_are_kept_apart():
    steps = Batch(
        {
            "observations": np.array([[0.0, 10.0], [1.0, 11.0]], np.float32),
            "actions": np.zeros((2, 2), np.int64),
            "rewards": np.array([[1.0, 2.0], [4.0, 8.0]], np.float32),
            "terminations": np.array([[False, True], [False, False]]),
            "truncations": np.zeros((2, 2), np.bool_),
        },
        2,
    )
    finals = Batch({"rows": np.array([1, 2, 3]), "observations": np.array([99.0, 2.0, 12.0], np.float32)})
    maker = TransitionMaker(gamma=0.5, n=2)
    made = maker.transitions(Rollout(steps, finals, 0))
    assert made["observations"].tolist() == [0, 10]
    assert made["rewards"].tolist() == [3, 2]
    assert made["next_observations"].tolist() == [2, 99]
    assert made["discounts"].tolist() == [0.25, 0]


@pytest.mark.parametrize(("n", "rewards"), [(1, [1, 5, 7]), (2, [1 + 0.5 * 5, 5])])
def test_a_step_that_only_resets_gives_no_transition(n, rewards):
    steps = Batch(
        {
            "observations": column(0, 1, 2, 3),
            "actions": column(1, 2, 3, 4, dtype=np.int64),
            "rewards": column(1, 5, 0, 7),
            "terminations": column(False, True, False, False, dtype=np.bool_),
            "truncations": column(False, False, True, False, dtype=np.bool_),
            "resets": column(False, False, True, False, dtype=np.bool_),
        },
        2,
    )
    finals = Batch({"rows": np.array([1, 2, 3]), "observations": np.array([2, 0, 4], np.float32)})
    found = TransitionMaker(gamma=0.5, n=n).transitions(Rollout(steps, finals, 0))
    assert found["rewards"].tolist() == rewards
    assert 3 not in found["actions"]
