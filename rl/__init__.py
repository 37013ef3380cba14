"""Reinforcement learning on the runtime: policies, rollouts, learning, checkpoints, evaluation.

`Policy` and the distributions import torch, at their first use; importing this package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .algorithm import Algorithm
from .callbacks import Callback, IterationReport, Training, TrainingResult
from .checkpoint import find_run, load_algorithm_name, policy_metadata, run_of
from .divergence import TrainingDivergedError
from .evaluation import Evaluation, evaluate
from .lazy import TORCH_EXPORTS, load
from .learner import Learner
from .progress import ProgressDisplay
from .progress_line import three_digits
from .returns import discounted_returns, explained_variance, generalized_advantages
from .rollout import RolloutWorker
from .run_folder import RunFolder, RunFolderError, check_vacant, default_run_dir, read_config, read_result
from .run_lock import check_unlocked
from .schedules import Rate, rate_at
from .serving import Answer, Served, ServerBusyError, ServerClosedError, serve
from .settings import Bounds, Derived, RunSettings, choice, number, shared_by_environments, validate
from .training_state import IterationOutcome, TrainingState
from .trajectory import Trajectory

if TYPE_CHECKING:
    from .distributions import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
    from .optimizer import FlatAdam
    from .policy import Policy

__all__ = [
    "Algorithm",
    "Answer",
    "Bernoulli",
    "Bounds",
    "Callback",
    "Categorical",
    "Derived",
    "DiagonalGaussian",
    "Evaluation",
    "FlatAdam",
    "IterationOutcome",
    "IterationReport",
    "Learner",
    "MultiCategorical",
    "Policy",
    "ProgressDisplay",
    "Rate",
    "RolloutWorker",
    "RunFolder",
    "RunFolderError",
    "RunSettings",
    "Served",
    "ServerBusyError",
    "ServerClosedError",
    "Training",
    "TrainingDivergedError",
    "TrainingResult",
    "TrainingState",
    "Trajectory",
    "check_unlocked",
    "check_vacant",
    "choice",
    "default_run_dir",
    "discounted_returns",
    "evaluate",
    "explained_variance",
    "find_run",
    "generalized_advantages",
    "load_algorithm_name",
    "number",
    "policy_metadata",
    "rate_at",
    "read_config",
    "read_result",
    "run_of",
    "serve",
    "shared_by_environments",
    "three_digits",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in TORCH_EXPORTS:
        return load(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
