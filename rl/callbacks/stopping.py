"""Callbacks that end a training. A limit that is reached says so in the log."""

from __future__ import annotations

import logging

from ..settings import Bounds, RunSettings
from .base import Callback, EvaluationReport, IterationReport, Training

logger = logging.getLogger("shoal")


class StopTrainingOnRewardThreshold(Callback):
    """Ends the training when an evaluation's mean return is at least `reward_threshold`; needs `eval_freq`."""

    def __init__(self, reward_threshold: float) -> None:
        self.reward_threshold: float = Bounds().read("reward_threshold", reward_threshold)

    def on_evaluation_end(self, training: Training, report: EvaluationReport) -> bool | None:
        """Compare the evaluation's mean return."""
        reached = report.mean_return >= self.reward_threshold
        if reached:
            reason = f"evaluation's mean return {report.mean_return:g} >= {self.reward_threshold:g}"
            logger.info("training of %s ends: %s", training.env_id, reason)
        return not reached


class StopTrainingOnNoModelImprovement(Callback):
    """Ends the training after more than `max_no_improvement_evals` evaluations in a row none of which was the best yet;
    needs `eval_freq`.

    The first `min_evals` evaluations don't end it. The count is the training's own: it goes on after a resume.
    """

    def __init__(self, max_no_improvement_evals: int, min_evals: int = 0) -> None:
        bounds = Bounds(whole=True, at_least=0)
        self.max_no_improvement_evals: int = bounds.read("max_no_improvement_evals", max_no_improvement_evals)
        self.min_evals: int = bounds.read("min_evals", min_evals)

    def on_evaluation_end(self, training: Training, report: EvaluationReport) -> bool | None:
        """Compare the number of evaluations since the best one."""
        over = report.since_best > self.max_no_improvement_evals and report.index >= self.min_evals
        if over:
            logger.info("training of %s ends: no improvement in %d evaluations", training.env_id, report.since_best)
        return not over


class StopTrainingOnMaxEpisodes(Callback):
    """Ends the training after the iteration in which its `max_episodes`th episode ended, of all environments together;
    each call of `train` counts anew."""

    def __init__(self, max_episodes: int) -> None:
        self.max_episodes: int = Bounds(whole=True, at_least=1).read("max_episodes", max_episodes)
        self._episodes = 0

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Begin to count."""
        self._episodes = 0

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Count the iteration's episodes."""
        self._episodes += len(report.episodes)
        return self._episodes < self.max_episodes


class StopTrainingOnMaxTimesteps(Callback):
    """Ends the training once `max_timesteps` environment steps are done, resumed parts included. Unlike
    `total_timesteps` it has no influence on schedules."""

    def __init__(self, max_timesteps: int) -> None:
        self.max_timesteps: int = Bounds(whole=True, at_least=1).read("max_timesteps", max_timesteps)

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Compare the steps."""
        return report.timesteps < self.max_timesteps


def stops_of_evaluations(run: RunSettings) -> list[Callback]:
    """What `eval_stop_return` and `eval_patience` ask for."""
    stops: list[Callback] = []
    if run.eval_stop_return is not None:
        stops.append(StopTrainingOnRewardThreshold(run.eval_stop_return))
    if run.eval_patience is not None:
        stops.append(StopTrainingOnNoModelImprovement(run.eval_patience - 1))
    return stops
