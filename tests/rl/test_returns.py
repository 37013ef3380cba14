import numpy as np
import pytest

from shoal.rl import discounted_returns, explained_variance, generalized_advantages


def advantages_of(r_t, discount_t, continues_t, v_tm1, v_t, lambda_):
    return generalized_advantages(
        r_t=r_t, discount_t=discount_t, continues_t=continues_t, v_tm1=v_tm1, v_t=v_t, lambda_=lambda_
    )


def returns_of(r_t, discount_t, continues_t, v_t):
    return discounted_returns(r_t=r_t, discount_t=discount_t, continues_t=continues_t, v_t=v_t)


def column(*values):
    return np.array(values, dtype=np.float32)[:, np.newaxis]


def test_advantages_by_hand():
    # γ = 0.5, λ = 0.5: δ = r + 0.5 v_t − v_tm1 = [1 + 1 − 1, 2 + 1.5 − 2, 3 + 2 − 3] = [1, 1.5, 2]
    # A_2 = 2; A_1 = 1.5 + 0.25 · 2 = 2; A_0 = 1 + 0.25 · 2 = 1.5
    advantages = advantages_of(
        column(1, 2, 3), column(0.5, 0.5, 0.5), column(1, 1, 1), column(1, 2, 3), column(2, 3, 4), 0.5
    )
    np.testing.assert_allclose(advantages, column(1.5, 2, 2))


def test_termination_bootstraps_nothing_and_cuts_the_past_off():
    # Step 1 terminates: δ_1 = 2 − 2 = 0 = A_1; A_0 = (1 + 1 − 1) + 0.25 · 0 = 1; A_2: 3 + 2 − 3 = 2
    advantages = advantages_of(
        column(1, 2, 3), column(0.5, 0, 0.5), column(1, 0, 1), column(1, 2, 3), column(2, 9, 4), 0.5
    )
    np.testing.assert_allclose(advantages, column(1, 0, 2))


def test_truncation_bootstraps_the_final_value_and_cuts_the_past_off():
    # Step 1 is truncated with final value 6: δ_1 = 2 + 3 − 2 = 3 = A_1, without A_2; A_0 = 1 + 0.25 · 3 = 1.75
    advantages = advantages_of(
        column(1, 2, 3), column(0.5, 0.5, 0.5), column(1, 0, 1), column(1, 2, 3), column(2, 6, 4), 0.5
    )
    np.testing.assert_allclose(advantages, column(1.75, 3, 2))


def test_lambda_one_gives_returns_minus_values():
    generator = np.random.default_rng(0)
    rewards, before, after = (generator.normal(size=(6, 3)) for _ in range(3))
    discount = np.full((6, 3), 0.9)
    continues = (generator.random((6, 3)) > 0.3).astype(float)
    after[:-1] = np.where(continues[:-1] == 1, before[1:], after[:-1])
    advantages = advantages_of(rewards, discount, continues, before, after, 1.0)
    np.testing.assert_allclose(advantages + before, returns_of(rewards, discount, continues, after))


def test_discounted_returns_by_hand():
    # G_2 = 3 + 0.5 · 4 = 5; step 1 truncated with value 6: G_1 = 2 + 3 = 5; G_0 = 1 + 0.5 · 5 = 3.5
    returns = returns_of(column(1, 2, 3), column(0.5, 0.5, 0.5), column(1, 0, 1), column(2, 6, 4))
    np.testing.assert_allclose(returns, column(3.5, 5, 5))


def test_inputs_stay_as_they_are():
    rewards = column(1, 2)
    advantages_of(rewards, column(1, 1), column(1, 1), column(0, 0), column(0, 0), 1.0)
    np.testing.assert_array_equal(rewards, column(1, 2))


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"one shape.*r_t.*\(2, 1\).*v_t.*\(3, 1\)"):
        advantages_of(column(1, 2), column(1, 1), column(1, 1), column(1, 1), column(1, 1, 1), 0.9)


def test_explained_variance():
    assert explained_variance(column(1, 2, 3), column(1, 2, 3)) == 1
    assert explained_variance(column(2, 2, 2), column(1, 2, 3)) == 0
    assert np.isnan(explained_variance(column(1, 2), column(5, 5)))
