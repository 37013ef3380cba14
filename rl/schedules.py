"""Hyperparameters that change during training: a float, `"lin_0.001"`, or a function of the remaining progress.

Remaining progress goes from 1 (start) towards 0 (end): 1 - timesteps / total_timesteps, taken at the start of an
iteration. So the last update still has a step size above 0.
"""

from __future__ import annotations

from collections.abc import Callable

from ..runtime import InputError

Rate = float | str | Callable[[float], float]
"""A constant, `"lin_VALUE"` (falls linearly from VALUE to 0), or a function from remaining progress in [0, 1] to the
value."""

LINEAR = "lin_"


def rate_start(name: str, rate: Rate) -> float | None:
    """The value that `rate` starts from; None for a function. InputError, naming it `name`, if it is none."""
    if callable(rate):
        return None
    text = rate.removeprefix(LINEAR) if isinstance(rate, str) else rate
    try:
        return float(text)
    except (TypeError, ValueError):
        raise InputError(
            f"{name} is {rate!r}, but must be a number, 'lin_NUMBER' (falls linearly to 0) or a function of the "
            "remaining progress"
        ) from None


def changes(rate: Rate | None) -> bool:
    """Whether a rate is not the same throughout."""
    return callable(rate) or (isinstance(rate, str) and rate.startswith(LINEAR))


def rate_at(rate: Rate, remaining_progress: float) -> float:
    """Value of `rate` when `remaining_progress` (1 → 0) of the training is left."""
    if callable(rate):
        return float(rate(remaining_progress))
    if isinstance(rate, str):
        start = float(rate.removeprefix(LINEAR))
        return start * remaining_progress if rate.startswith(LINEAR) else start
    return float(rate)
