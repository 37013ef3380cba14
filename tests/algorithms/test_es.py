"""What evolution strategies compute, by numbers worked out by hand."""

import numpy as np
import pytest

from shoal.algorithms import ES, ESConfig
from shoal.algorithms.es import antithetic_coefficients, centred_ranks
from shoal.rl import Clock
from shoal.rl.evolution.aggregation import weighted_noise

CLOCK = Clock(0, 100)


def test_centred_ranks_are_spread_from_minus_to_plus_one_half():
    assert centred_ranks(np.array([[30.0, -1.0], [7.0, 8.0], [1e9, 9.0]])).tolist() == [
        [0.3, -0.5],
        [-0.3, -0.1],
        [0.5, 0.1],
    ]


def test_equal_returns_share_the_mean_of_their_ranks():
    assert centred_ranks(np.array([5.0, 2.0, 5.0, 5.0, 9.0])).tolist() == [0, -0.5, 0, 0, 0.5]
    assert centred_ranks(np.array([1.0, 1.0, 1.0])).tolist() == [0, 0, 0]
    assert centred_ranks(np.array([4.0])).tolist() == [0]


@pytest.mark.parametrize("seed", range(3))
def test_centred_ranks_sum_to_zero(seed):
    returns = np.random.default_rng(seed).integers(0, 6, (7, 2)).astype(float)
    assert centred_ranks(returns).sum() == pytest.approx(0, abs=1e-12)


def test_the_gradient_on_a_quadratic_is_exact():
    # F(θ) = −½ (θ − c)ᵀ A (θ − c), so F(θ + σε) − F(θ − σε) = 2σ εᵀ∇F: along √2 times both axes Σ ε εᵀ / n is 1.
    a, centre, theta, std = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([1.0, -1.0]), np.array([0.5, 2.0]), 0.3
    noise = np.array([2**0.5, 0, 2**0.5, 0], np.float32)  # slices: (√2, 0), (0, √2)
    directions = np.array([0, 1])

    def value(point):
        return -0.5 * (point - centre) @ a @ (point - centre)

    moved = [std * noise[start : start + 2] for start in directions]
    returns = np.array([[value(theta + step), value(theta - step)] for step in moved])
    gradient = weighted_noise(noise, directions, antithetic_coefficients(returns, std), 2)
    np.testing.assert_allclose(gradient, -a @ (theta - centre), rtol=1e-6)  # (−1.5, −5.5)
    np.testing.assert_allclose(gradient, [-1.5, -5.5], rtol=1e-6)


def test_what_both_of_a_pair_return_cancels():
    assert antithetic_coefficients(np.array([[7.0, 7.0], [3.0, 1.0]]), 0.5).tolist() == [0.0, 2 / (4 * 0.5)]


def test_the_first_step_is_as_long_as_the_learning_rate():
    config = ESConfig(learning_rate=0.1, weight_decay=0.5)
    moved, memory = ES.move(np.array([1.0, -2.0], np.float32), np.array([0.25, 0.0]), {}, config, CLOCK)
    # Gradients 0.25 − 0.5 · 1 and 0 + 0.5 · 2: Adam's first step is their sign.
    np.testing.assert_allclose(moved, [0.9, -1.9], rtol=1e-6)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(memory["first_moment"], [0.1 * -0.25, 0.1 * 1])
    np.testing.assert_allclose(memory["second_moment"], [0.001 * 0.0625, 0.001 * 1])
    assert memory["steps"] == 1


def test_the_second_step_remembers_the_first():
    config = ESConfig(learning_rate=0.1, weight_decay=0.0)
    weights = np.zeros(1, np.float32)
    _, memory = ES.move(weights, np.array([2.0]), {}, config, CLOCK)
    moved, memory = ES.move(weights, np.array([-1.0]), memory, config, CLOCK)
    first, second = 0.9 * 0.2 + 0.1 * -1, 0.999 * 0.004 + 0.001 * 1
    expected = 0.1 * (first / (1 - 0.9**2)) / ((second / (1 - 0.999**2)) ** 0.5 + 1e-8)
    np.testing.assert_allclose(moved, [expected], rtol=1e-6)
    assert memory["steps"] == 2
