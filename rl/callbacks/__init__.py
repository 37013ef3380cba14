"""What a training tells the outside, and ready-made callbacks, with Stable-Baselines3's names."""

from .base import Callback, EvaluationReport, IterationReport, Training, TrainingResult, callback_list, under_way
from .periodic import CheckpointCallback, EveryNTimesteps
from .stopping import (
    StopTrainingOnMaxEpisodes,
    StopTrainingOnMaxTimesteps,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
    stops_of_evaluations,
)

__all__ = [
    "Callback",
    "CheckpointCallback",
    "EvaluationReport",
    "EveryNTimesteps",
    "IterationReport",
    "StopTrainingOnMaxEpisodes",
    "StopTrainingOnMaxTimesteps",
    "StopTrainingOnNoModelImprovement",
    "StopTrainingOnRewardThreshold",
    "Training",
    "TrainingResult",
    "callback_list",
    "stops_of_evaluations",
    "under_way",
]
