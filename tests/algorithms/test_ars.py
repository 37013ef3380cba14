"""What augmented random search computes, by numbers worked out by hand."""

import numpy as np
import pytest

from shoal.algorithms import ARS, ARSConfig
from shoal.algorithms.ars import search_coefficients, used_directions
from shoal.rl import Clock
from shoal.runtime import InputError

RETURNS = np.array([[1.0, 2.0], [10.0, 0.0], [3.0, 3.0], [0.0, 7.0]])


def test_directions_are_sorted_by_the_better_of_their_two():
    assert used_directions(RETURNS, 4).tolist() == [1, 3, 2, 0]
    assert used_directions(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]), 2).tolist() == [
        2,
        0,
    ]  # of equals the earlier


def test_the_step_is_divided_by_the_deviation_of_the_returns_that_are_used():
    # Used are 10, 0 and 0, 7: mean 4.25, squares 5.75² + 2 · 4.25² + 2.75² = 76.75.
    deviation = (76.75 / 4) ** 0.5
    found = search_coefficients(RETURNS, 2)
    np.testing.assert_allclose(found, [0, 10 / (2 * deviation), 0, -7 / (2 * deviation)])


def test_the_step_does_not_depend_on_the_unit_of_returns():
    np.testing.assert_allclose(search_coefficients(1e6 * RETURNS - 5, 3), search_coefficients(RETURNS, 3))


def test_equal_returns_move_nothing():
    assert search_coefficients(np.full((3, 2), 4.0), 2).tolist() == [0, 0, 0]


def test_the_step_does_not_get_shorter_towards_the_optimum_but_by_its_schedule():
    # F = −θ²/2 along ε = 1: however near θ is to 0, r⁺ − r⁻ and σ_R shrink together.
    steps = [search_coefficients(np.array([[-((x + 0.01) ** 2), -((x - 0.01) ** 2)]]), 1)[0] for x in (1.0, 0.1)]
    assert steps == pytest.approx([-2.0, -2.0])
    config, weights = ARSConfig(learning_rate="lin_0.5"), np.ones(1, np.float32)
    early, late = (ARS.move(weights, np.array([-2.0]), {}, config, Clock(at, 100))[0] for at in (0, 90))
    np.testing.assert_allclose([early, late], [[0.0], [0.9]], rtol=1e-6)


def test_the_bonus_for_not_falling_is_taken_off():
    returns, lengths = np.array([[[10.0, 12.0], [3.0, 3.0]]]), np.array([[[10, 10], [1, 3]]])
    assert ARS.fitness(returns, lengths, ARSConfig(alive_bonus_offset=-1.0)).tolist() == [[1.0, 1.0]]


def test_more_directions_cannot_be_used_than_there_are():
    with pytest.raises(InputError, match="n_top is 9, but must be at most n_delta, 8"):
        ARS("CartPole-v1", n_top=9)


def test_the_policy_is_zero_at_first_unless_it_shall_not_be():
    weights = np.array([1.0, -2.0], np.float32)
    assert ARS.begin(weights, ARSConfig()).tolist() == [0, 0]
    assert ARS.begin(weights, ARSConfig(zero_policy=False)).tolist() == [1, -2]
