"""The learner actor: turns rollouts into the next weights, on a GPU if there is one.

    update([rollouts], iteration, …) → (next weights, …, metrics)

What decides the result is the algorithm, the state before and the rollouts; the live `Learner` is a cache of it. A
learner that was killed comes back as it was made, and says so (`StateLostError`) when it is asked to go on from an
iteration that it does not hold; then it is given the last snapshot and what it learned from since, and repeats that,
bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime import ObjectRef, get, method
from ..clock import Clock
from ..data.batch import Batch
from ..data.rollout import Rollout
from ..declaration import Declaration
from ..divergence import divergence
from ..models.layout import ParameterLayout
from ..models.spec import ModelSpec
from ..settings import RunSettings
from ..threads import limit_threads, limit_torch_threads
from .learner import Learner


class StateLostError(RuntimeError):
    """The learner doesn't hold the state of the iteration that it was asked to go on from."""


@dataclass(frozen=True)
class LearnerInput:
    """What one update was given: references to the rollouts of all groups, in group order, and its clock."""

    rollouts: tuple[ObjectRef, ...]
    clock: Clock


_MAY_BE_UNDEFINED = {"train/explained_variance"}
"""Metrics that need not exist: all returns of an iteration may be equal."""


class LearnerActor:
    """Actor class. `algorithm` says how to learn, with `config`; `spec` makes the model, `settings` are the run's."""

    def __init__(self, algorithm: type[Declaration], config: Any, spec: ModelSpec, settings: RunSettings) -> None:
        limit_threads(settings.threads)
        self._algorithm, self._config, self._spec, self._settings = algorithm, config, spec, settings
        self._begin()

    def _begin(self) -> None:
        self._learner = Learner(self._spec, seed=self._settings.seed, device=self._settings.device)
        self._algorithm.prepare(self._learner, self._config)
        self._live = True
        self._snapshot_inserted = 0

    def describe(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """Flat weights of now, their layout, and the device that "auto" resolved to."""
        model = self._learner.model
        return model.get_weights(), model.layout, str(model.flat.device)

    @method(num_returns=4)
    def update(
        self, rollouts: Sequence[ObjectRef], iteration: int, clock: Clock, snapshot: bool
    ) -> tuple[np.ndarray, dict[str, Any] | None, Batch | None, dict[str, float]]:
        """Learn from the rollouts of all groups, in group order, collected in iteration `iteration`.

        Returns the next weights; with `snapshot` the learner's next state, and the transitions that the replay buffer
        took in since the last snapshot (None without a buffer); and metrics.

        Raises:
            StateLostError: this learner is not where that iteration begins.
            TrainingDivergedError: something is not finite any more.
        """
        self._require(iteration)
        self._live = False  # until it is whole again: an update may fail, or be interrupted, half-way
        waiting = time.perf_counter()
        rollout = Rollout.side_by_side(get(list(rollouts)))
        started = time.perf_counter()
        metrics = self._learn(rollout, clock)
        weights = self._learner.model.get_weights()
        self._check_finite(rollout, weights, metrics)
        self._live = True
        metrics["time/update_seconds"] = time.perf_counter() - started
        metrics["time/learner_wait_seconds"] = started - waiting
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        if not snapshot:
            return weights, None, None, finite
        return weights, self._learner.state(), self._new_transitions(), finite

    def snapshot(self, iteration: int) -> dict[str, Any]:
        """The learner's state at the start of iteration `iteration`; StateLostError if it is not there."""
        self._require(iteration)
        return self._learner.state()

    def restore(
        self,
        iteration: int,
        state: Sequence[ObjectRef],
        transitions: Sequence[ObjectRef],
        inputs: Sequence[LearnerInput],
    ) -> None:
        """Go to where `inputs`, from iteration `iteration` on, lead.

        `state` boxes a reference to the snapshot at that iteration; it is empty for the very beginning. `transitions`
        are what the replay buffer then held, in the order in which it took them in.
        """
        limit_torch_threads(self._settings.threads)
        self._begin()
        self._live = False
        if state:
            self._learner.load(get(state[0]), get(list(transitions)))
            self._snapshot_inserted = self._learner.replay.inserted if self._learner.has_replay else 0
        self._learner.iteration = iteration
        for given in inputs:
            self._learn(Rollout.side_by_side(get(list(given.rollouts))), given.clock)
        self._live = True

    def _new_transitions(self) -> Batch | None:
        if not self._learner.has_replay:
            return None
        replay = self._learner.replay
        count, self._snapshot_inserted = replay.inserted - self._snapshot_inserted, replay.inserted
        return replay.newest(count)

    def _learn(self, rollout: Rollout, clock: Clock) -> dict[str, float]:
        learner = self._learner
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told as a whole, see _check_finite
            metrics = self._algorithm.update(learner, rollout, self._config, clock)
        learner.iteration += 1
        if learner.has_replay:
            metrics |= {"replay/size": learner.replay.size, "replay/inserted": learner.replay.inserted}
        return metrics

    def _check_finite(self, rollout: Rollout, weights: np.ndarray, metrics: Mapping[str, float]) -> None:
        """Raise TrainingDivergedError if something is not finite: what is would not be updated any more, unnoticed."""
        learner, rewards = self._learner, rollout.steps["rewards"]
        optimizers = learner.optimizers.values()
        losses, gradients = zip(*(optimizer.take_sums() for optimizer in optimizers), strict=True)
        stages = {
            "a reward": rewards,
            **({} if learner.advantages is None else {"an advantage": learner.advantages}),
            "the loss": losses,
            "the gradient": gradients,
            "a moment of the optimizer": [0 if optimizer.moments_are_finite() else np.nan for optimizer in optimizers],
            "a weight": weights,
            **{f"the metric {name}": value for name, value in metrics.items() if name not in _MAY_BE_UNDEFINED},
        }
        earlier = [learner.replay.rewards] if learner.has_replay else []  # the reason may be long ago
        error = divergence(learner.iteration, stages, [rewards, *earlier], learner.advantages)
        if error is not None:
            raise error

    def _require(self, iteration: int) -> None:
        limit_torch_threads(self._settings.threads)
        if not self._live or self._learner.iteration != iteration:
            raise StateLostError(f"the learner is at iteration {self._learner.iteration}, not at {iteration}")
