"""Reinforcement learning on the runtime: policies, rollouts, learning, checkpoints, evaluation.

Importing this package loads nothing of it; each name is loaded at its first use, and `Policy` and the distributions
load torch then.
"""

from typing import TYPE_CHECKING

from ..runtime import lazy_exports

if TYPE_CHECKING:
    from .algorithm import Algorithm
    from .asynchronous.actor_learner import ActorLearnerAlgorithm, acted_batch, actor_learner_metrics, corrected
    from .asynchronous.admission import Limits
    from .asynchronous.algorithm import AsynchronousAlgorithm, AsynchronousConfig, AsynchronousReplayConfig
    from .asynchronous.replay_admission import ReplayAdmission, ReplayLimits
    from .callbacks import (
        Callback,
        CheckpointCallback,
        EvaluationReport,
        EveryNTimesteps,
        IterationReport,
        StopTrainingOnMaxEpisodes,
        StopTrainingOnMaxTimesteps,
        StopTrainingOnNoModelImprovement,
        StopTrainingOnRewardThreshold,
        Training,
        TrainingResult,
    )
    from .callbacks.loggers import make_loggers, read_loggers
    from .callbacks.progress import ProgressDisplay
    from .callbacks.progress_line import three_digits
    from .chosen_settings import choose_settings
    from .clock import Clock
    from .data.batch import Batch, Column
    from .data.dataset import Dataset
    from .data.dataset_arrays import write_dataset
    from .data.dataset_writer import new_dataset_id
    from .data.rate_limit import RateLimit
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
    from .declaration import Acted, takes_arrays
    from .divergence import TrainingDivergedError
    from .elsewhere import settings_elsewhere
    from .evaluation.evaluate import evaluate
    from .evaluation.off_policy import (
        OffPolicyEstimate,
        epsilon_greedy_log_probs,
        evaluate_off_policy,
        importance_sampling,
        per_decision_importance_sampling,
        weighted_importance_sampling,
        weighted_per_decision_importance_sampling,
    )
    from .evaluation.recording import Recording, record
    from .evaluation.replayed_episode import ReplayedEpisode, replay_episode
    from .evaluation.result import Evaluation
    from .evolution.algorithm import EvolutionAlgorithm, EvolutionConfig
    from .known_algorithms import tell_algorithms
    from .language.algorithm import LanguageAlgorithm, LanguageConfig
    from .language.answering import answers_of, check_language_model, in_order
    from .language.asked import Said
    from .language.learning import (
        UnknownWeightsError,
        add_old_policy,
        check_weights,
        learn_from_answers,
        log_probs_in_parts,
        log_probs_of,
        sampled_batch,
        sampling_metrics,
        values_in_parts,
        values_of,
    )
    from .language.model_reward import ModelReward
    from .language.packed_training import PackedAlgorithm
    from .language.packing import Text, conversation, plain_texts
    from .language.pairs import Pairs
    from .language.policy import LanguagePolicy
    from .language.served_reward import ServedReward
    from .language.text_sources import Turns, conversations_of, documents_of, pairs_of, right_answers, rows_of_dataset
    from .language.text_training import TextAlgorithm, TextConfig, take_text_steps
    from .language.tokens import train_tokenizer
    from .lazy import losses, torch
    from .learn.learner import Learner
    from .learn.optimizers import FlatAdam, FlatAdamW, FlatRMSprop, FlatSGD
    from .learn.plain_q import plain_td_loss, soft_actor_loss, soft_critic_loss
    from .learn.surrogate import clipped_surrogate
    from .models.actor_critic import ActorCritic
    from .models.build import build_model
    from .models.distributions import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
    from .models.joint_policy import JointPolicy
    from .models.joint_spec import JointSpec
    from .models.memory import Memory
    from .models.model import Model
    from .models.plain import KnownLoss
    from .models.policies import load_policy
    from .models.policy import Policy
    from .models.q_network import QNetwork, QuantileQNetwork
    from .models.rows import Rows
    from .models.spec import ModelSpec
    from .off_policy import OffPolicyAlgorithm, ReplayConfig, learn_from_replay, take_gradient_steps
    from .offline import TRANSITIONS, OfflineAlgorithm, OfflineConfig, read_dataset, take_dataset_steps
    from .on_policy import (
        OnPolicyAlgorithm,
        fill_next_values,
        learning_batch,
        learning_metrics,
        minibatch_metrics,
        normalized_advantages,
    )
    from .runs.checkpoint import find_checkpoint, find_run, holds_model, load_algorithm_name, policy_metadata, run_of
    from .runs.comparison import draw_comparison, read_group
    from .runs.difference import Difference, difference
    from .runs.doctor import Diagnosis, diagnose
    from .runs.files import write_json
    from .runs.run_folder import RunFolder, RunFolderError, read_config, read_mean_return, read_result
    from .runs.run_lock import check_unlocked
    from .runs.run_place import RUNS, check_vacant, check_writable, claimed_run_dir, remove_run
    from .runs.verification import Verification, verify
    from .schedules import Rate, rate_at
    from .serving import (
        Answer,
        Served,
        ServedPolicies,
        ServedTexts,
        ServerBusyError,
        ServerClosedError,
        SessionInUseError,
        UnknownPolicyError,
        UnknownSessionError,
        serve,
    )
    from .settings import (
        FREE,
        Bounds,
        Derived,
        Hyperparameters,
        RunSettings,
        choice,
        number,
        one_per_environment,
        shared_by_environments,
    )
    from .statistics import bootstrap_interval, interquartile_mean
    from .supervised.algorithm import TableAlgorithm
    from .supervised.boosters import LightGBMModel, XGBoostModel
    from .supervised.boosting import BoostingActor
    from .supervised.fit_settings import BoostingConfig, FitSettings, NetworkFitSettings, library_parameters
    from .supervised.fitted import FittedModel
    from .supervised.losses import Recipe, balanced_weights, chosen_loss
    from .supervised.network import NetworkModel, NetworkSpec
    from .supervised.network_learners import NetworkLearners, state_of, weights_bytes, weights_from
    from .supervised.ranks import Ranks
    from .supervised.rounds import History
    from .supervised.saved import evaluate_model, load_model
    from .supervised.stream import Stream, read_rows
    from .supervised.table import Table, TableSchema
    from .support import ACTIONS, OBSERVATIONS, Combination, combinations, example_observation
    from .training_state import IterationOutcome, TrainingState, Weights

__all__ = [
    "ACTIONS",
    "FREE",
    "OBSERVATIONS",
    "RUNS",
    "TRANSITIONS",
    "Acted",
    "ActorCritic",
    "ActorLearnerAlgorithm",
    "Algorithm",
    "Answer",
    "AsynchronousAlgorithm",
    "AsynchronousConfig",
    "AsynchronousReplayConfig",
    "Batch",
    "Bernoulli",
    "BoostingActor",
    "BoostingConfig",
    "Bounds",
    "Callback",
    "Categorical",
    "CheckpointCallback",
    "Clock",
    "Column",
    "Combination",
    "Dataset",
    "Derived",
    "Diagnosis",
    "DiagonalGaussian",
    "Difference",
    "Evaluation",
    "EvaluationReport",
    "EveryNTimesteps",
    "EvolutionAlgorithm",
    "EvolutionConfig",
    "FitSettings",
    "FittedModel",
    "FlatAdam",
    "FlatAdamW",
    "FlatRMSprop",
    "FlatSGD",
    "History",
    "Hyperparameters",
    "IterationOutcome",
    "IterationReport",
    "JointPolicy",
    "JointSpec",
    "KnownLoss",
    "LanguageAlgorithm",
    "LanguageConfig",
    "LanguagePolicy",
    "Learner",
    "LightGBMModel",
    "Limits",
    "Memory",
    "Model",
    "ModelReward",
    "ModelSpec",
    "MultiCategorical",
    "NetworkFitSettings",
    "NetworkLearners",
    "NetworkModel",
    "NetworkSpec",
    "OffPolicyAlgorithm",
    "OffPolicyEstimate",
    "OfflineAlgorithm",
    "OfflineConfig",
    "OnPolicyAlgorithm",
    "PackedAlgorithm",
    "Pairs",
    "Policy",
    "ProgressDisplay",
    "QNetwork",
    "QuantileQNetwork",
    "Ranks",
    "Rate",
    "RateLimit",
    "Recipe",
    "Recording",
    "ReplayAdmission",
    "ReplayBuffer",
    "ReplayConfig",
    "ReplayLimits",
    "ReplayedEpisode",
    "Rollout",
    "Rows",
    "RunFolder",
    "RunFolderError",
    "RunSettings",
    "Said",
    "Served",
    "ServedPolicies",
    "ServedReward",
    "ServedTexts",
    "ServerBusyError",
    "ServerClosedError",
    "SessionInUseError",
    "StopTrainingOnMaxEpisodes",
    "StopTrainingOnMaxTimesteps",
    "StopTrainingOnNoModelImprovement",
    "StopTrainingOnRewardThreshold",
    "Stream",
    "Table",
    "TableAlgorithm",
    "TableSchema",
    "Text",
    "TextAlgorithm",
    "TextConfig",
    "Training",
    "TrainingDivergedError",
    "TrainingResult",
    "TrainingState",
    "Turns",
    "UnknownPolicyError",
    "UnknownSessionError",
    "UnknownWeightsError",
    "Verification",
    "Weights",
    "XGBoostModel",
    "acted_batch",
    "actor_learner_metrics",
    "add_old_policy",
    "answers_of",
    "balanced_weights",
    "bootstrap_interval",
    "build_model",
    "check_language_model",
    "check_unlocked",
    "check_vacant",
    "check_weights",
    "check_writable",
    "choice",
    "choose_settings",
    "chosen_loss",
    "claimed_run_dir",
    "clipped_surrogate",
    "combinations",
    "conversation",
    "conversations_of",
    "corrected",
    "diagnose",
    "difference",
    "discounted_returns",
    "documents_of",
    "draw_comparison",
    "epsilon_greedy_log_probs",
    "evaluate",
    "evaluate_model",
    "evaluate_off_policy",
    "example_observation",
    "explained_variance",
    "fill_next_values",
    "find_checkpoint",
    "find_run",
    "generalized_advantages",
    "holds_model",
    "importance_sampling",
    "in_order",
    "interquartile_mean",
    "lambda_returns",
    "learn_from_answers",
    "learn_from_replay",
    "learning_batch",
    "learning_metrics",
    "library_parameters",
    "load_algorithm_name",
    "load_model",
    "load_policy",
    "log_probs_in_parts",
    "log_probs_of",
    "losses",
    "make_loggers",
    "minibatch_metrics",
    "n_step_returns",
    "new_dataset_id",
    "normalized_advantages",
    "number",
    "one_per_environment",
    "pairs_of",
    "per_decision_importance_sampling",
    "plain_td_loss",
    "plain_texts",
    "policy_metadata",
    "rate_at",
    "read_config",
    "read_dataset",
    "read_group",
    "read_loggers",
    "read_mean_return",
    "read_result",
    "read_rows",
    "record",
    "remove_run",
    "replay_episode",
    "retrace",
    "right_answers",
    "rows_of_dataset",
    "run_of",
    "sampled_batch",
    "sampling_metrics",
    "serve",
    "settings_elsewhere",
    "shared_by_environments",
    "soft_actor_loss",
    "soft_critic_loss",
    "state_of",
    "take_dataset_steps",
    "take_gradient_steps",
    "take_text_steps",
    "takes_arrays",
    "tell_algorithms",
    "three_digits",
    "torch",
    "train_tokenizer",
    "values_in_parts",
    "values_of",
    "verify",
    "vtrace",
    "weighted_importance_sampling",
    "weighted_per_decision_importance_sampling",
    "weights_bytes",
    "weights_from",
    "write_dataset",
    "write_json",
]

__getattr__, __dir__ = lazy_exports(__name__)
