import numpy as np
import pytest

from shoal.rl.data.moments import RewardScale, RunningMoments


def test_merged_moments_are_those_of_all_rows_at_once():
    rows = np.array([[1.0, 10], [2, 10], [6, 10], [7, 10], [4, 10]], np.float32)
    merged = RunningMoments((2,))
    for part in (rows[:2], rows[2:2], rows[2:3], rows[3:]):
        merged.merge(part)
    assert merged.count == 5
    assert merged.mean.tolist() == [4, 10]
    # Squares around 4: 9 + 4 + 4 + 9 + 0 = 26; the second element never varies.
    assert merged.squares.tolist() == [26, 0]
    assert merged.scale == pytest.approx([1 / np.sqrt(26 / 5), 1e4])


def test_far_from_zero_nothing_is_lost():
    rows = 1e8 + np.array([[1.0], [2], [3]])
    moments = RunningMoments((1,))
    for row in rows:
        moments.merge(row[np.newaxis])
    assert moments.squares == pytest.approx([2], abs=1e-6)


def test_before_the_first_row_the_scale_is_one():
    assert RunningMoments((2,)).scale.tolist() == [1, 1]
    assert RewardScale(0.5)(np.array([3.0])).tolist() == [3]


def test_the_reward_scale_is_of_running_returns_of_each_environment():
    scale = RewardScale(0.5)
    rewards = np.array([[4, 0], [2, 8], [1, 0]], np.float32)
    ended = np.array([[False, True], [True, False], [False, False]])
    scale.merge(rewards[:2], ended[:2])
    scale.merge(rewards[2:], ended[2:])
    # First environment: 4; 2 + 0.5 · 4 = 4, then its episode ends; 1. Second: 0; 8; 0.5 · 8 = 4.
    returns = np.array([4, 4, 1, 0, 8, 4])
    assert scale(np.array([6.0])) == pytest.approx(6 / returns.std())


def test_scaled_rewards_are_clipped():
    scale = RewardScale(1.0)
    scale.merge(np.zeros((3, 1)), np.zeros((3, 1), bool))  # rewards that never vary
    assert scale(np.array([-5.0, 1e-9])).tolist() == pytest.approx([-10, 1e-5])


def test_state_brings_all_back():
    scale, other = RewardScale(0.9), RewardScale(0.9)
    generator = np.random.default_rng(0)
    parts = [(generator.normal(size=(4, 2)), generator.random((4, 2)) < 0.3) for _ in range(3)]
    scale.merge(*parts[0])
    other.load(scale.state())
    for part in parts[1:]:
        scale.merge(*part)
        other.merge(*part)
    assert scale(np.ones(3)).tobytes() == other(np.ones(3)).tobytes()
