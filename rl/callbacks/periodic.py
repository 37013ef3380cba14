"""Callbacks that do something now and then, counted in environment steps: the first iteration that reaches a multiple.

Multiples are those of the whole run, so a resumed run keeps to them.
"""

from __future__ import annotations

from pathlib import Path

from ..clock import Clock
from ..settings import Bounds
from .base import Callback, EvaluationReport, IterationReport, Training, TrainingResult


class EveryNTimesteps(Callback):
    """Tells another callback only of those iterations that reach a multiple of `n_steps` environment steps."""

    def __init__(self, n_steps: int, callback: Callback) -> None:
        self.n_steps: int = Bounds(whole=True, at_least=1).read("n_steps", n_steps)
        self.callback = callback
        self._timesteps = 0

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        """Begin to count where the training stands."""
        self._timesteps = training.timesteps
        self.callback.on_training_start(training, total_timesteps)

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        """Pass the iteration on if it is time."""
        before, self._timesteps = self._timesteps, report.timesteps
        due = Clock(before, report.total_timesteps).passes(self.n_steps, report.timesteps - before)
        return self.callback.on_iteration_end(training, report) if due else None

    def on_evaluation_end(self, training: Training, report: EvaluationReport) -> bool | None:
        """Pass every evaluation on."""
        return self.callback.on_evaluation_end(training, report)

    def on_training_end(self, training: Training, result: TrainingResult) -> None:
        """Pass the end on."""
        self.callback.on_training_end(training, result)

    def on_exception(self, training: Training, error: BaseException) -> None:
        """Pass it on."""
        self.callback.on_exception(training, error)


class CheckpointCallback(EveryNTimesteps):
    """Saves a checkpoint into `save_path`/checkpoints every `save_freq` environment steps; the newest 3 are kept."""

    def __init__(self, save_freq: int, save_path: str | Path) -> None:
        super().__init__(Bounds(whole=True, at_least=1).read("save_freq", save_freq), _Save(Path(save_path)))


class _Save(Callback):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_iteration_end(self, training: Training, report: IterationReport) -> bool | None:
        training.save(self._folder)
        return None
