import numpy as np
import pytest

from shoal.rl import (
    discounted_returns,
    explained_variance,
    generalized_advantages,
    lambda_returns,
    n_step_returns,
    retrace,
    vtrace,
)


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


# rewards 1 2 3, γ = ½, step 1 truncated with final value 6; values 2 (after step 0), 4 (after step 2)
TRUNCATED = {
    "r_t": column(1, 2, 3),
    "discount_t": column(0.5, 0.5, 0.5),
    "continues_t": column(1, 0, 1),
    "v_t": column(2, 6, 4),
}


def test_lambda_returns_by_hand():
    # G_2 = 3 + 2 = 5; G_1 = 2 + 3 = 5; G_0 = 1 + ½ (½ · 2 + ½ · 5) = 2.75
    np.testing.assert_allclose(lambda_returns(**TRUNCATED, lambda_=0.5), column(2.75, 5, 5))
    np.testing.assert_allclose(lambda_returns(**TRUNCATED, lambda_=0.0), column(2, 5, 5))
    np.testing.assert_allclose(lambda_returns(**TRUNCATED, lambda_=1.0), discounted_returns(**TRUNCATED))


def test_n_step_returns_by_hand():
    # one step: r + ½ v; two steps: 1 + ½ · 2 + ¼ · 6 = 3.5, and no further, since step 1 is the episode's last
    np.testing.assert_allclose(n_step_returns(**TRUNCATED, n=1), column(2, 5, 5))
    for n in (2, 3, 9):
        np.testing.assert_allclose(n_step_returns(**TRUNCATED, n=n), column(3.5, 5, 5))
    ones = {"r_t": column(1, 1, 1, 1), "discount_t": column(1, 1, 1, 1), "continues_t": column(1, 1, 1, 1)}
    np.testing.assert_allclose(n_step_returns(**ones, v_t=column(10, 20, 30, 40), n=2), column(22, 32, 42, 41))
    with pytest.raises(ValueError, match="n is 0"):
        n_step_returns(**TRUNCATED, n=0)


def test_termination_ends_n_steps_and_bootstraps_nothing():
    ended = TRUNCATED | {"discount_t": column(0.5, 0, 0.5)}
    np.testing.assert_allclose(n_step_returns(**ended, n=3), column(2, 2, 5))


@pytest.mark.parametrize("seed", range(3))
def test_gamma_one_and_lambda_one_telescope(seed):
    generator = np.random.default_rng(seed)
    rewards, values = generator.normal(size=(7, 2)), generator.normal(size=(8, 2))
    ones = np.ones((7, 2))
    returns = rewards[::-1].cumsum(0)[::-1] + values[-1]
    np.testing.assert_allclose(advantages_of(rewards, ones, ones, values[:-1], values[1:], 1.0), returns - values[:-1])
    np.testing.assert_allclose(
        n_step_returns(r_t=rewards, discount_t=ones, continues_t=ones, v_t=values[1:], n=7), returns
    )


def on_policy(**changes):
    given = TRUNCATED | {"v_tm1": column(1, 2, 3), "log_rhos": column(0, 0, 0)}
    return vtrace(**given | changes)


def test_vtrace_on_policy_is_the_return_and_bootstraps_at_the_true_end():
    targets, advantages = on_policy()
    np.testing.assert_allclose(targets, discounted_returns(**TRUNCATED))
    # A_0 = 1 + ½ · 5 − 1; A_1 uses the final value 6, not the next episode's: 2 + 3 − 2; the last step: 3 + 2 − 3
    np.testing.assert_allclose(advantages, column(2.5, 3, 2))


def test_vtrace_by_hand():
    # ratios 2 and ½ with ρ̄ = 1.5, c̄ = 1: ρ = 1.5, ½; γ = ½; values 1 2, bootstrap 3; rewards 1 1
    targets, advantages = vtrace(
        r_t=column(1, 1),
        discount_t=column(0.5, 0.5),
        continues_t=column(1, 1),
        v_tm1=column(1, 2),
        v_t=column(2, 3),
        log_rhos=np.log(column(2, 0.5)),
        rho_bar=1.5,
        c_bar=1.0,
    )
    # δ = 1.5 (1 + 1 − 1) = 1.5, ½ (1 + 1.5 − 2) = ¼; vs_1 = 2.25; vs_0 = 1 + 1.5 + ½ · 1 · ¼ = 2.625
    np.testing.assert_allclose(targets, column(2.625, 2.25))
    np.testing.assert_allclose(advantages, column(1.5 * (1 + 1.125 - 1), 0.25))


def test_two_episodes_in_one_batch_are_two_apart():
    generator = np.random.default_rng(4)
    parts = {name: generator.normal(size=(6, 1)).astype(np.float32) for name in ("r_t", "v_tm1", "v_t", "log_rhos")} | {
        "discount_t": np.full((6, 1), 0.9, np.float32),
        "continues_t": column(1, 1, 0, 1, 1, 1),
    }
    whole = vtrace(**parts)
    for cut in (slice(0, 3), slice(3, 6)):
        apart = vtrace(**{name: array[cut] for name, array in parts.items()})
        for one, two in zip(whole, apart, strict=True):
            np.testing.assert_allclose(one[cut], two, rtol=1e-6)


def test_retrace_by_hand():
    # γ = ½, q = 1 2, v = 2 3, r = 1 1: δ = 1 + 1 − 1 = 1, 1 + 1.5 − 2 = ½; c_1 = ½ · min(1, 2) = ½: 1 + 1 + ½ · ½ · ½
    arguments = {
        "r_t": column(1, 1),
        "discount_t": column(0.5, 0.5),
        "q_tm1": column(1, 2),
        "v_t": column(2, 3),
        "log_rhos": np.log(column(0.1, 2)),
        "lambda_": 0.5,
    }
    np.testing.assert_allclose(retrace(continues_t=column(1, 1), **arguments), column(2.125, 2.5))
    np.testing.assert_allclose(retrace(continues_t=column(0, 1), **arguments), column(2, 2.5))


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
