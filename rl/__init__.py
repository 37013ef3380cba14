"""Reinforcement learning on the runtime: policies, rollouts, learning, checkpoints, evaluation.

`Policy` and the distributions import torch, at their first use; importing this package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .callbacks import Callback, IterationReport, Training, TrainingResult
from .lazy import TORCH_EXPORTS, load
from .returns import discounted_returns, explained_variance, generalized_advantages
from .schedules import Rate, rate_at
from .settings import RunSettings, choice, number, validate
from .trajectory import Trajectory

if TYPE_CHECKING:
    from .distributions import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
    from .optimizer import FlatAdam
    from .policy import Policy

__all__ = [
    "Bernoulli",
    "Callback",
    "Categorical",
    "DiagonalGaussian",
    "FlatAdam",
    "IterationReport",
    "MultiCategorical",
    "Policy",
    "Rate",
    "RunSettings",
    "Training",
    "TrainingResult",
    "Trajectory",
    "choice",
    "discounted_returns",
    "explained_variance",
    "generalized_advantages",
    "number",
    "rate_at",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in TORCH_EXPORTS:
        return load(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
