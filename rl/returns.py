"""Returns and advantages as pure functions of time-major arrays [T, …].

Time is in the names: `r_t` is the reward of step t, `discount_t` the discount that applies after step t (γ, or 0 where
the episode terminated), `v_tm1` the value of the state before step t, `v_t` the value of the state after it. At a
truncated step, `v_t` is the value of the episode's true last observation, and `continues_t` is 0: the return bootstraps
there, and nothing flows back over the end of the episode.
"""

from __future__ import annotations

import numpy as np


def generalized_advantages(
    *,
    r_t: np.ndarray,
    discount_t: np.ndarray,
    continues_t: np.ndarray,
    v_tm1: np.ndarray,
    v_t: np.ndarray,
    lambda_: float,
) -> np.ndarray:
    """Generalized advantage estimation (Schulman et al., 2016, arXiv 1506.02438, equation 16).

        δ_t = r_t + discount_t · v_t − v_tm1
        A_t = δ_t + discount_t · λ · continues_t · A_{t+1},   A_T = 0

    All arrays are [T, …] of one shape and floating; `continues_t` is 1 where step t+1 belongs to the same episode as
    step t, else 0.

    Returns:
        A in the dtype of `r_t`. The λ-returns, targets for the value, are A + v_tm1.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(r_t=r_t, discount_t=discount_t, continues_t=continues_t, v_tm1=v_tm1, v_t=v_t)
    advantages = r_t + discount_t * v_t - v_tm1
    decay_t = (discount_t * continues_t * lambda_).astype(r_t.dtype)
    for t in range(len(r_t) - 2, -1, -1):
        advantages[t] += decay_t[t] * advantages[t + 1]
    return advantages


def discounted_returns(
    *, r_t: np.ndarray, discount_t: np.ndarray, continues_t: np.ndarray, v_t: np.ndarray
) -> np.ndarray:
    """Returns to the end of the episode, or to the end of the rollout, where they bootstrap.

        G_t     = r_t + discount_t · (continues_t · G_{t+1} + (1 − continues_t) · v_t)
        G_{T−1} = r_{T−1} + discount_{T−1} · v_{T−1}

    Shapes, and ValueError, as in `generalized_advantages`.
    """
    _check_shapes(r_t=r_t, discount_t=discount_t, continues_t=continues_t, v_t=v_t)
    returns = r_t + discount_t * v_t
    for t in range(len(r_t) - 2, -1, -1):
        following = continues_t[t] * returns[t + 1] + (1 - continues_t[t]) * v_t[t]
        returns[t] = r_t[t] + discount_t[t] * following
    return returns


def explained_variance(predictions: np.ndarray, targets: np.ndarray) -> float:
    """1 − Var[targets − predictions] / Var[targets]; NaN if the targets do not vary.

    1 is a perfect prediction, 0 as good as a constant, below 0 worse than a constant.
    """
    _check_shapes(predictions=predictions, targets=targets)
    variance = float(np.var(targets))
    return float("nan") if variance == 0 else 1 - float(np.var(targets - predictions)) / variance


def _check_shapes(**arrays: np.ndarray) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the arrays must have one shape, but have {shapes}")
