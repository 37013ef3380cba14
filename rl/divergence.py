"""When a training has diverged: what is not finite any more, what is likely to be the reason, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_HUGE = 1e9
"""A reward of this size counts as the reason: no learner works well with such values, and float32 overflows where they
are squared with what comes of them."""


class TrainingDivergedError(ArithmeticError):
    """Loss, gradient, weights or a metric are no finite numbers any more; the message names which, the iteration, the
    largest reward and advantage, and what to change."""


def all_finite(value: Any) -> bool:
    """Whether a number, or each number of an array or a sequence, is finite."""
    return math.isfinite(value) if isinstance(value, float) else bool(np.isfinite(value).all())


def divergence(
    iteration: int, stages: Mapping[str, Any], rewards: Sequence[np.ndarray], advantages: np.ndarray | None
) -> TrainingDivergedError | None:
    """The error for an update that led to something that is not finite; None if all of it is.

    Args:
        iteration: number of the iteration, from 1.
        stages: numbers and arrays by name, in the order in which one follows from the other.
        rewards: those that were learnt from, in any number of arrays.
        advantages: those that were made of them, if the algorithm has any.
    """
    wrong = next((name for name, value in stages.items() if not all_finite(value)), None)
    if wrong is None:
        return None
    largest = _largest(*rewards)
    sizes = f"The largest reward is {largest:.3g}"
    if advantages is not None:
        sizes += f", the largest advantage {_largest(advantages):.3g}"
    if not largest < _HUGE:
        reason = "Rewards of this size are the reason: divide or clip them in the environment"
    else:
        reason = "Take a smaller learning_rate or max_grad_norm, or scale the rewards"
    return TrainingDivergedError(
        f"training diverged: {wrong} is not finite in iteration {iteration}. {sizes} (without their signs). {reason}. "
        "The weights before this iteration are as they were"
    )


def _largest(*values: np.ndarray) -> float:
    return float(np.max([np.abs(array).max(initial=0) for array in values]))
