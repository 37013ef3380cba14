"""Returns and advantages as pure functions of time-major arrays [T, …].

Time is in the names: `r_t` is the reward of step t, `discount_t` the discount that applies after step t (γ, or 0 where
the episode terminated), `v_tm1` the value of the state before step t, `v_t` the value of the state after it. At a
truncated step, `v_t` is the value of the episode's true last observation, and `continues_t` is 0: the return bootstraps
there, and nothing flows back over the end of the episode.
"""

from __future__ import annotations

import math

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
    rows = advantages.reshape(len(r_t), math.prod(r_t.shape[1:]))  # so that each is a view, also of [T]
    following = rows[-1]
    for row, decay in zip(rows[-2::-1], decay_t.reshape(rows.shape)[-2::-1], strict=True):
        following = np.add(row, decay * following, row)
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


def lambda_returns(
    *, r_t: np.ndarray, discount_t: np.ndarray, continues_t: np.ndarray, v_t: np.ndarray, lambda_: float
) -> np.ndarray:
    """λ-returns (Sutton & Barto, 2018, equation 12.18 in its recursive form).

        G_t = r_t + discount_t · ((1 − λ · continues_t) · v_t + λ · continues_t · G_{t+1}),   continues_{T−1} = 0

    λ = 0 gives one-step targets, λ = 1 `discounted_returns`. Shapes, and ValueError, as in `generalized_advantages`.
    """
    _check_shapes(r_t=r_t, discount_t=discount_t, continues_t=continues_t, v_t=v_t)
    returns = r_t + discount_t * v_t
    for t in range(len(r_t) - 2, -1, -1):
        share = lambda_ * continues_t[t]
        returns[t] = r_t[t] + discount_t[t] * ((1 - share) * v_t[t] + share * returns[t + 1])
    return returns


def n_step_returns(
    *, r_t: np.ndarray, discount_t: np.ndarray, continues_t: np.ndarray, v_t: np.ndarray, n: int
) -> np.ndarray:
    """n-step returns (Sutton & Barto, 2018, equation 7.1); fewer steps where the episode or the rollout ends before.

        G_t = Σ_{k<m} (Π_{j<k} discount_{t+j}) r_{t+k} + (Π_{j<m} discount_{t+j}) · v_{t+m−1}

    m ≤ n is the number of steps until the first with continues = 0, or the last. Shapes, and ValueError, as in
    `generalized_advantages`; ValueError if n is below 1.
    """
    _check_shapes(r_t=r_t, discount_t=discount_t, continues_t=continues_t, v_t=v_t)
    if n < 1:
        raise ValueError(f"n is {n}, but must be at least 1")
    steps = len(r_t)
    returns = r_t + discount_t * v_t
    for _ in range(min(n, steps) - 1):  # the k-step return of t is made of the (k−1)-step return of t + 1
        following = np.where(continues_t[:-1] != 0, returns[1:], v_t[:-1])
        returns[:-1] = r_t[:-1] + discount_t[:-1] * following
    return returns


def vtrace(
    *,
    r_t: np.ndarray,
    discount_t: np.ndarray,
    continues_t: np.ndarray,
    v_tm1: np.ndarray,
    v_t: np.ndarray,
    log_rhos: np.ndarray,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    lambda_: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """V-trace targets and advantages (Espeholt et al., 2018, arXiv 1802.01561, equations 1 and 4, with remark 2's λ).

        ρ_t = min(ρ̄, π/μ),   c_t = λ · min(c̄, π/μ),   δ_t = ρ_t · (r_t + discount_t · v_t − v_tm1)
        vs_t = v_tm1 + δ_t + discount_t · continues_t · c_t · (vs_{t+1} − v_tm1_{t+1})
        A_t = ρ_t · (r_t + discount_t · vs_{t+1} − v_tm1),   with v_t for vs_{t+1} where the episode or the rollout ends

    `log_rhos` is log π(a) − log μ(a), summed over the parts of an action. Returns (vs, A), both [T, …]. Shapes, and
    ValueError, as in `generalized_advantages`.
    """
    _check_shapes(r_t=r_t, discount_t=discount_t, continues_t=continues_t, v_tm1=v_tm1, v_t=v_t, log_rhos=log_rhos)
    ratios = np.exp(log_rhos)
    rhos, traces = np.minimum(rho_bar, ratios), lambda_ * np.minimum(c_bar, ratios)
    corrections = rhos * (r_t + discount_t * v_t - v_tm1)  # becomes vs − v_tm1
    for t in range(len(r_t) - 2, -1, -1):
        corrections[t] += discount_t[t] * continues_t[t] * traces[t] * corrections[t + 1]
    targets = v_tm1 + corrections
    following = np.array(v_t)
    following[:-1] = np.where(continues_t[:-1] != 0, targets[1:], v_t[:-1])
    return targets, rhos * (r_t + discount_t * following - v_tm1)


def retrace(
    *,
    r_t: np.ndarray,
    discount_t: np.ndarray,
    continues_t: np.ndarray,
    q_tm1: np.ndarray,
    v_t: np.ndarray,
    log_rhos: np.ndarray,
    lambda_: float = 1.0,
) -> np.ndarray:
    """Retrace targets for Q (Munos et al., 2016, arXiv 1606.02647, equations 3 and 4).

        δ_t = r_t + discount_t · v_t − q_tm1,   c_t = λ · min(1, π/μ)
        target_t = q_tm1 + δ_t + discount_t · continues_t · c_{t+1} · (target_{t+1} − q_tm1_{t+1})

    `q_tm1` is Q of the action taken at step t, `v_t` = E_π Q(s_{t+1}, ·), `log_rhos` as in `vtrace`. Returns targets
    [T, …]. Shapes, and ValueError, as in `generalized_advantages`.
    """
    _check_shapes(r_t=r_t, discount_t=discount_t, continues_t=continues_t, q_tm1=q_tm1, v_t=v_t, log_rhos=log_rhos)
    traces = lambda_ * np.minimum(1, np.exp(log_rhos))
    corrections = r_t + discount_t * v_t - q_tm1
    for t in range(len(r_t) - 2, -1, -1):
        corrections[t] += discount_t[t] * continues_t[t] * traces[t + 1] * corrections[t + 1]
    return q_tm1 + corrections


def explained_variance(predictions: np.ndarray, targets: np.ndarray) -> float:
    """1 − Var[targets − predictions] / Var[targets]; NaN if the targets do not vary.

    1 is a perfect prediction, 0 as good as a constant, below 0 worse than a constant.
    """
    _check_shapes(predictions=predictions, targets=targets)
    variance = _variance(targets)
    return float("nan") if variance == 0 else 1 - _variance(targets - predictions) / variance


def _variance(values: np.ndarray) -> float:
    """`np.var`, in a third of its time."""
    flat = values.reshape(-1)
    centred = flat - np.add.reduce(flat) / len(flat)
    return float(np.add.reduce(centred * centred) / len(flat))


def _check_shapes(**arrays: np.ndarray) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the arrays must have one shape, but have {shapes}")
