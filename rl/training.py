"""The driver's loop of one call of `train`: iterations, what is told of each, and the result."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import psutil

from ..runtime import get, signals_held
from .callbacks import Callback, EvaluationReport, IterationReport, Training, TrainingResult
from .clock import Clock
from .models.layout import ParameterLayout
from .training_state import IterationOutcome, TrainingState, has_reached


class TrainingLoop:
    """One call of `train`.

    `iterate` does one iteration from a state, `finish_evaluations` waits for the last evaluation, and `go_on_from`
    makes what they led to the algorithm's; `training` is what the callbacks are given. The mean return at which the
    loop ends is `stop_return`; `reward_threshold` is the one that counts as solved where there is none.
    """

    def __init__(
        self,
        training: Training,
        iterate: Callable[[TrainingState, Clock], IterationOutcome],
        finish_evaluations: Callable[[TrainingState], tuple[TrainingState, EvaluationReport | None]],
        go_on_from: Callable[[TrainingState], None],
        *,
        callbacks: Sequence[Callback],
        stop_return: float | None,
        reward_threshold: float | None,
    ) -> None:
        self._training, self._iterate, self._callbacks = training, iterate, callbacks
        self._finish_evaluations, self._go_on_from = finish_evaluations, go_on_from
        self._stop_return = stop_return
        self._threshold = reward_threshold if stop_return is None else stop_return
        self._state: TrainingState | None = None
        self._solved_timesteps: int | None = None
        self._interrupted = False
        self._wall_seconds = 0.0
        self._deaths: Counter[str] = Counter()

    def run(self, state: TrainingState, total_timesteps: int) -> None:
        """Go on from `state` for so many environment steps, or until something ends it before."""
        first, target = state.timesteps, state.timesteps + total_timesteps
        self._note_solved(state)
        for callback in self._callbacks:
            callback.on_training_start(self._training, target)
        began = time.perf_counter()
        while state.timesteps < target and not self._interrupted and not has_reached(state.recent, self._stop_return):
            outcome = self._iterate(state, Clock(state.timesteps, target))
            with signals_held():  # a run's files have a line of each iteration that the algorithm has done
                state = outcome.state
                self._go_on_from(state)
                self._note_solved(state)
                self._count_deaths(outcome.metrics)
                elapsed = time.perf_counter() - began
                report = _report(outcome, target, elapsed, fps=(state.timesteps - first) / elapsed)
                answers = self._tell_evaluation(outcome.evaluation)
                answers += [callback.on_iteration_end(self._training, report) for callback in self._callbacks]
                self._interrupted = any(answer is False for answer in answers) and state.timesteps < target
        state, evaluation = self._finish_evaluations(state)
        with signals_held():
            self._go_on_from(state)
            self._tell_evaluation(evaluation)
        self._state, self._wall_seconds = state, time.perf_counter() - began

    def result(self, layout: ParameterLayout) -> TrainingResult:
        """What came of `run`, told to the callbacks; `layout` is that of the weights."""
        assert self._state is not None
        state, training = self._state, self._training
        result = TrainingResult(
            algorithm=training.name,
            env=training.env_id,
            seed=training.seed,
            workers=training.workers,
            timesteps=state.timesteps,
            iterations=state.iteration,
            episode_return_mean=state.episode_return_mean,
            solved=None if self._threshold is None else self._solved_timesteps is not None,
            solved_timesteps=self._solved_timesteps,
            interrupted=self._interrupted,
            wall_seconds=self._wall_seconds,
            total_seconds=time.time() - psutil.Process().create_time(),
            weights_sha256=layout.sha256(get(state.weights.ref)),
            chaos=dict(self._deaths),
        )
        for callback in self._callbacks:
            callback.on_training_end(training, result)
        return result

    def _tell_evaluation(self, report: EvaluationReport | None) -> list[bool | None]:
        if report is None:
            return []
        return [callback.on_evaluation_end(self._training, report) for callback in self._callbacks]

    def _count_deaths(self, metrics: Mapping[str, float]) -> None:
        for name, count in metrics.items():
            if name.startswith("chaos/"):
                self._deaths[name.removeprefix("chaos/")] += int(count)

    def _note_solved(self, state: TrainingState) -> None:
        if self._solved_timesteps is None and has_reached(state.recent, self._threshold):
            self._solved_timesteps = state.timesteps


def _report(outcome: IterationOutcome, target: int, elapsed: float, fps: float) -> IterationReport:
    state = outcome.state
    optional = {"rollout/ep_rew_mean": state.episode_return_mean, "rollout/ep_len_mean": state.episode_length_mean}
    metrics = {name: value for name, value in optional.items() if value is not None}
    metrics |= {
        "time/fps": fps,
        "time/iterations": state.iteration,
        "time/time_elapsed": elapsed,
        "time/total_timesteps": state.timesteps,
    }
    return IterationReport(
        iteration=state.iteration,
        timesteps=state.timesteps,
        total_timesteps=target,
        metrics=metrics | outcome.metrics | ({} if outcome.evaluation is None else outcome.evaluation.metrics),
        episodes=outcome.episodes,
        episode_return_mean=state.episode_return_mean,
        elapsed_seconds=elapsed,
        schedule=outcome.schedule,
        hashes=outcome.hashes,
        examples=outcome.examples,
    )
