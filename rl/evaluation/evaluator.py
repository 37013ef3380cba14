"""Evaluation during training: an actor of its own plays with weights that stay as they were, while training goes on.

    iteration … passes a multiple of eval_freq:   tell of the evaluation before, waiting for it;  begin the next
    end of `train`:                               tell of the last one, waiting for it

So training waits only if an evaluation takes longer than `eval_freq` steps of training; and what follows from a result
(the best policy, an early end) follows after the same iteration whatever the number of workers, their speed, and kills.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import runtime
from ...envs import EnvSpec, derive_seed
from ...runtime import ObjectRef, get
from ..callbacks import EvaluationReport
from ..clock import Clock
from ..collect.channel import Channel
from ..lazy import load
from ..models.joint_spec import AnySpec
from ..settings import RunSettings
from ..threads import limit_threads, limit_torch_threads
from ..training_state import EvaluationLog, PendingEvaluation, TrainingState
from .evaluate import evaluation_spec, play
from .result import Evaluation

if TYPE_CHECKING:
    from ..models.policy import Policy


class Evaluator:
    """Actor class. What it gives depends on its arguments alone, so a call can be repeated by a restarted process."""

    def __init__(self, spec: EnvSpec, model_spec: AnySpec, settings: RunSettings, channel: Channel) -> None:
        limit_threads(settings.threads)
        self._spec, self._model_spec = evaluation_spec(spec, {}), model_spec
        self._settings, self._channel = settings, channel
        self._policy: Policy | None = None

    def evaluate(self, weights: np.ndarray, version: int, index: int) -> Evaluation:
        """Play `eval_episodes` episodes with these flat weights, taking the best actions.

        Each evaluation has episodes of its own, and none of them is one of training or of `evaluate`: the policy that
        is kept as the best is not chosen by what it is measured with afterwards.
        """
        limit_torch_threads(self._settings.threads)
        if self._policy is None:
            self._policy = load("policy_of")(self._model_spec)
        self._policy.set_weights(weights, version=version)
        asked = time.monotonic()

        def raise_if_closed() -> None:
            nonlocal asked
            asked = self._channel.ask(asked, time.monotonic())

        return play(
            self._policy,
            self._spec,
            self._settings.eval_episodes,
            run_seed=derive_seed(self._settings.seed, "evaluation during training", index),
            deterministic=True,
            settings=self._settings,
            each_step=raise_if_closed,
        )


class Evaluations:
    """The driver's side: when an evaluation begins, and what is told of it. Its actor starts with the first one."""

    def __init__(
        self, spec: EnvSpec, model_spec: AnySpec, settings: RunSettings, options: dict[str, Any], close_seconds: float
    ) -> None:
        self._made_from = spec, model_spec, settings
        self._frequency = settings.eval_freq
        self._options, self._close_seconds = options, close_seconds
        self._running: dict[int, ObjectRef] = {}

    @cached_property
    def _channel(self) -> Channel:
        return Channel()

    @cached_property
    def actor(self) -> Any:
        """The evaluator; it restarts if its process dies, and repeats what it was doing."""
        return runtime.remote(Evaluator).options(**self._options).remote(*self._made_from, self._channel)

    def after_iteration(
        self, before: TrainingState, after: TrainingState
    ) -> tuple[EvaluationLog, EvaluationReport | None]:
        """Begin an evaluation of the weights after an iteration, if it is time; the log with it, and the report of the
        one before."""
        log, steps = before.evaluations, after.timesteps - before.timesteps
        clock = Clock(before.timesteps, after.timesteps)
        if self._frequency is None or not clock.passes(self._frequency, steps):
            return log, None
        log, report = self.finish(log)
        pending = PendingEvaluation(log.begun, after.timesteps, after.weights)
        self._begin(pending)
        return replace(log, begun=log.begun + 1, pending=pending), report

    def finish(self, log: EvaluationLog) -> tuple[EvaluationLog, EvaluationReport | None]:
        """Wait for the pending evaluation, if there is one; the log after it, and its report."""
        pending = log.pending
        if pending is None:
            return log, None
        if pending.index not in self._running:  # of the run before a resume, or of an iteration that is repeated
            self._begin(pending)
        found: Evaluation = get(self._running[pending.index])
        self._running.clear()
        return _told(log, pending, found)

    def _begin(self, pending: PendingEvaluation) -> None:
        given = pending.weights.ref, pending.weights.version, pending.index
        self._running[pending.index] = self.actor.evaluate.remote(*given)

    def close(self) -> None:
        """Let the evaluator close its environments, and end it; nothing where it was never started."""
        if "actor" not in vars(self):
            return
        self._channel.close()
        running = list(self._running.values())
        runtime.wait(running, num_returns=len(running), timeout=self._close_seconds) if running else None
        runtime.kill(self.actor)


def _told(log: EvaluationLog, pending: PendingEvaluation, found: Evaluation) -> tuple[EvaluationLog, EvaluationReport]:
    """The log after the result of its pending evaluation, and the report; the first of equals stays the best."""
    mean, highest = found.episode_return_mean, log.best_mean_return
    best = highest is None or mean > highest
    after = replace(log, pending=None, since_best=log.since_best + 1)
    if best:
        after = replace(after, best_mean_return=mean, since_best=0, best_weights=pending.weights)
    assert after.best_mean_return is not None
    return after, EvaluationReport(
        index=pending.index,
        timesteps=pending.timesteps,
        version=pending.weights.version,
        mean_return=mean,
        std_return=found.episode_return_std,
        mean_length=found.episode_length_mean,
        returns=found.returns,
        lengths=found.lengths,
        best=best,
        best_mean_return=after.best_mean_return,
        since_best=after.since_best,
    )
