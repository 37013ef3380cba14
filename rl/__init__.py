"""Reinforcement learning on the runtime: policies, rollouts, learning, checkpoints, evaluation.

`Policy` and the distributions import torch, at their first use; importing this package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .algorithm import Algorithm
from .callbacks import Callback, IterationReport, Training, TrainingResult
from .checkpoint import load_algorithm_name, policy_metadata
from .lazy import TORCH_EXPORTS, load
from .learner import Learner, TrainingDivergedError
from .returns import discounted_returns, explained_variance, generalized_advantages
from .schedules import Rate, rate_at
from .settings import RunSettings, choice, number, validate
from .training_state import IterationOutcome, TrainingState
from .trajectory import Trajectory

if TYPE_CHECKING:
    from .distributions import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
    from .optimizer import FlatAdam
    from .policy import Policy

__all__ = [
    "Algorithm",
    "Bernoulli",
    "Callback",
    "Categorical",
    "DiagonalGaussian",
    "FlatAdam",
    "IterationOutcome",
    "IterationReport",
    "Learner",
    "MultiCategorical",
    "Policy",
    "Rate",
    "RunSettings",
    "Training",
    "TrainingDivergedError",
    "TrainingResult",
    "TrainingState",
    "Trajectory",
    "choice",
    "discounted_returns",
    "explained_variance",
    "generalized_advantages",
    "load_algorithm_name",
    "number",
    "policy_metadata",
    "rate_at",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in TORCH_EXPORTS:
        return load(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
