"""Reinforcement learning on the runtime: policies, rollouts, learning, checkpoints, evaluation.

`Policy` and the distributions import torch, at their first use; importing this package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .algorithm import Algorithm
from .callbacks import Callback, IterationReport, Training, TrainingResult
from .checkpoint import find_run, load_algorithm_name, policy_metadata, run_of
from .clock import Clock
from .data.batch import Batch, Column
from .data.replay import ReplayBuffer
from .data.returns import (
    discounted_returns,
    explained_variance,
    generalized_advantages,
    lambda_returns,
    n_step_returns,
    retrace,
    vtrace,
)
from .data.rollout import Rollout
from .declaration import Acted
from .divergence import TrainingDivergedError
from .evaluation import Evaluation, evaluate
from .lazy import TORCH_EXPORTS, load, torch
from .learn.learner import Learner
from .models.spec import ModelSpec
from .off_policy import OffPolicyAlgorithm, ReplayConfig, learn_from_replay
from .on_policy import OnPolicyAlgorithm, learning_batch, learning_metrics
from .progress import ProgressDisplay
from .progress_line import three_digits
from .run_folder import RunFolder, RunFolderError, check_vacant, default_run_dir, read_config, read_result
from .run_lock import check_unlocked
from .schedules import Rate, rate_at
from .serving import Answer, Served, ServerBusyError, ServerClosedError, serve
from .settings import (
    Bounds,
    Derived,
    RunSettings,
    choice,
    number,
    one_per_environment,
    shared_by_environments,
    validate,
)
from .training_state import IterationOutcome, TrainingState

if TYPE_CHECKING:
    from .learn.optimizers import FlatAdam, FlatRMSprop
    from .models.actor_critic import ActorCritic
    from .models.build import build_model
    from .models.distributions import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
    from .models.model import Model
    from .models.policy import Policy
    from .models.q_network import QNetwork

__all__ = [
    "Acted",
    "ActorCritic",
    "Algorithm",
    "Answer",
    "Batch",
    "Bernoulli",
    "Bounds",
    "Callback",
    "Categorical",
    "Clock",
    "Column",
    "Derived",
    "DiagonalGaussian",
    "Evaluation",
    "FlatAdam",
    "FlatRMSprop",
    "IterationOutcome",
    "IterationReport",
    "Learner",
    "Model",
    "ModelSpec",
    "MultiCategorical",
    "OffPolicyAlgorithm",
    "OnPolicyAlgorithm",
    "Policy",
    "ProgressDisplay",
    "QNetwork",
    "Rate",
    "ReplayBuffer",
    "ReplayConfig",
    "Rollout",
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
    "build_model",
    "check_unlocked",
    "check_vacant",
    "choice",
    "default_run_dir",
    "discounted_returns",
    "evaluate",
    "explained_variance",
    "find_run",
    "generalized_advantages",
    "lambda_returns",
    "learn_from_replay",
    "learning_batch",
    "learning_metrics",
    "load_algorithm_name",
    "n_step_returns",
    "number",
    "one_per_environment",
    "policy_metadata",
    "rate_at",
    "read_config",
    "read_result",
    "retrace",
    "run_of",
    "serve",
    "shared_by_environments",
    "three_digits",
    "torch",
    "validate",
    "vtrace",
]


def __getattr__(name: str) -> Any:
    if name in TORCH_EXPORTS:
        return load(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
