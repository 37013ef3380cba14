"""The learner actor: turns rollouts into the next weights, on a GPU if there is one.

    update([rollouts], iteration, …) → (next weights, …, metrics)

What decides the result is the algorithm, the state before and the rollouts; the live `Learner` is a cache of it. A
learner that was killed comes back as it was made, and says so (`StateLostError`) when it is asked to go on from an
iteration that it does not hold; then it is given the last snapshot and what it learned from since, and repeats that,
bit for bit.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import runtime
from ...runtime import ActorHandle, ObjectRef, get, method
from ..chaos import Death, dying
from ..clock import Clock
from ..data.batch import Batch
from ..data.moments import RewardScale
from ..data.rollout import Rollout
from ..declaration import Learning
from ..divergence import divergence
from ..models.layout import ParameterLayout
from ..models.spec import ModelSpec
from ..settings import RunSettings
from ..threads import limit_threads, limit_torch_threads
from .learner import Learner
from .log import LearnerLog
from .lost import StateLostError
from .shards import Gather

if TYPE_CHECKING:
    from .optimizers import Share

_MAY_BE_UNDEFINED = {"train/explained_variance"}
"""Metrics that need not exist: all returns of an iteration may be equal."""


@functools.cache
def _gauges() -> tuple[Any, Any]:
    """What `shoal status` shows of the replay buffer. Made in the learner's process: a driver needs no such module."""
    make = runtime.util.metrics.Gauge
    return (
        make("replay_transitions", "Transitions that the replay buffer holds."),
        make("replay_bytes", "Bytes of them and of their priorities."),
    )


class LearnerActor:
    """Actor class. `algorithm` says how to learn, with `config`; `spec` makes the model, `settings` are the run's;
    `initial` are weights by name to begin with, `reader` is the actor that reads a dataset for all of a group."""

    def __init__(
        self,
        algorithm: type[Learning],
        config: Any,
        spec: ModelSpec,
        settings: RunSettings,
        initial: Mapping[str, np.ndarray] | None = None,
        *,
        reader: ActorHandle | None = None,
    ) -> None:
        limit_threads(settings.threads)
        self._initial, self._reader = initial or {}, reader
        self._algorithm, self._config, self._spec, self._settings = algorithm, config, spec, settings
        self._begin()

    def _begin(self) -> None:
        settings = self._settings
        scale = RewardScale(getattr(self._config, "gamma", 1.0)) if settings.normalizes_rewards else None
        self._learner = Learner(
            self._spec,
            seed=settings.seed,
            device=settings.device,
            reward_scale=scale,
            settings=settings,
            reader=self._reader,
        )
        self._learner.model.begin_with(self._initial)
        self._algorithm.prepare(self._learner, self._config)
        self._live = True
        self._snapshot_inserted = 0

    def describe(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """Flat weights of now, their layout, and the device that "auto" resolved to."""
        model = self._learner.model
        return model.get_weights(), model.layout, str(model.flat.device)

    @method(num_returns=4)
    def update(
        self,
        rollouts: Sequence[ObjectRef],
        iteration: int,
        clock: Clock,
        snapshot: bool,
        death: Death | None = None,
    ) -> tuple[np.ndarray, dict[str, Any] | None, Batch | None, dict[str, float]]:
        """Learn from the rollouts of all groups, in group order, collected in iteration `iteration`; perhaps die.

        Returns the next weights; with `snapshot` the learner's next state, and the transitions that the replay buffer
        took in since the last snapshot (None without a buffer); and metrics.

        Raises:
            StateLostError: this learner is not where that iteration begins.
            TrainingDivergedError: something is not finite any more.
        """
        self.require(iteration)
        waiting = time.perf_counter()
        rollout = Rollout.side_by_side(get(list(rollouts)))
        started = time.perf_counter()
        with dying(death):
            weights, metrics = self.learn(rollout, clock)
        metrics["time/update_seconds"] = time.perf_counter() - started
        metrics["time/learner_wait_seconds"] = started - waiting
        taken = self.take_snapshot() if snapshot else (None, None)
        return (weights, *taken, metrics)

    def gather_by(self, gather: Gather) -> None:
        """Let the gradients of shards be put together that way from now on."""
        self._learner.gather = gather

    def share(self, share: Share | None) -> None:
        """Keep a part of the moments alone, from now on."""
        self._learner.share(share)

    def learn(self, rollout: Rollout, clock: Clock) -> tuple[np.ndarray, dict[str, float]]:
        """Learn from a rollout; returns the next weights, and metrics."""
        metrics = self.advance(rollout, clock)
        return self.finish(rollout, metrics), metrics

    def advance(self, rollout: Rollout, clock: Clock) -> dict[str, float]:
        """Learn from a rollout; returns metrics. `finish` is to be called after this, or after several."""
        self._live = False  # until it is whole again: an update may fail, or be interrupted, half-way
        metrics = self._learn(rollout, clock)
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        sums = (optimizer.sums_are_finite() for optimizer in self._learner.optimizers.values())
        if metrics.keys() - finite.keys() - _MAY_BE_UNDEFINED or not all(sums):
            self._check_finite(rollout, self.weights(), metrics)
        return finite

    def finish(self, rollout: Rollout, metrics: Mapping[str, float]) -> np.ndarray:
        """Look whether all is finite after the last of some updates; returns the next weights."""
        weights = self.weights()
        self._check_finite(rollout, weights, metrics)
        if self._learner.has_replay:
            for gauge, name in zip(_gauges(), ("replay/size", "replay/bytes"), strict=True):
                gauge.set(metrics[name])
        self._live = True
        return weights

    def skip(self) -> None:
        """Go on to the next iteration without learning: there was nothing to learn from."""
        self._learner.iteration += 1

    def begin_with(self, weights: np.ndarray) -> None:
        """Take over flat weights before the first update."""
        self._learner.model.set_weights(weights)

    @property
    def replay(self) -> Any:
        """The learner's replay buffer; None without one."""
        return self._learner.replay if self._learner.has_replay else None

    def weights(self) -> np.ndarray:
        """Flat weights of now: a copy."""
        return self._learner.model.get_weights()

    def state(self) -> dict[str, Any]:
        """All that the next update depends on but the replay buffer's transitions."""
        return self._learner.state()

    @method(num_returns=2)
    def snapshot(self, iteration: int, inserted: int) -> tuple[dict[str, Any], Batch | None]:
        """The learner's state at the start of iteration `iteration`, and what its replay buffer took in after the first
        `inserted` transitions; StateLostError if it is not there."""
        self.require(iteration)
        replay = self.replay
        return self.state(), None if replay is None else replay.newest(replay.inserted - inserted)

    def restore(self, log: LearnerLog) -> None:
        """Go to where a log leads."""
        self.go_back(log.iteration, *log.held())
        for given in log.inputs:
            self.repeat(Rollout.side_by_side(get(list(given.rollouts))), given.clock)

    def go_back(self, iteration: int, state: Mapping[str, Any] | None, transitions: list[Batch]) -> None:
        """Be where iteration `iteration` began: `state` is what it was then, None at the very beginning; `transitions`
        are what the replay buffer held."""
        limit_torch_threads(self._settings.threads)
        self._begin()
        if state is not None:
            self._learner.load(state, transitions)
            self._snapshot_inserted = 0 if self.replay is None else self.replay.inserted
        self._learner.iteration = iteration

    def repeat(self, rollout: Rollout, clock: Clock) -> None:
        """Learn from a rollout once more, whose update was told already."""
        self._live = False
        self._learn(rollout, clock)
        self._live = True

    def take_snapshot(self) -> tuple[dict[str, Any], Batch | None]:
        """The learner's state of now, and the transitions that its replay buffer took in since the last one."""
        replay = self.replay
        if replay is None:
            return self.state(), None
        count, self._snapshot_inserted = replay.inserted - self._snapshot_inserted, replay.inserted
        return self.state(), replay.newest(count)

    def _learn(self, rollout: Rollout, clock: Clock) -> dict[str, float]:
        learner = self._learner
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told as a whole, see _check_finite
            learner.begin(rollout)
            metrics = self._algorithm.update(learner, rollout, self._config, clock)
            learner.end(rollout)
        learner.iteration += 1
        if learner.has_replay:
            replay = learner.replay
            metrics |= {"replay/size": replay.size, "replay/inserted": replay.inserted, "replay/bytes": replay.nbytes}
        return metrics

    def _check_finite(self, rollout: Rollout, weights: np.ndarray, metrics: Mapping[str, float]) -> None:
        """Raise TrainingDivergedError if something is not finite: what is would not be updated any more, unnoticed."""
        learner, rewards = self._learner, rollout.steps.get("rewards", np.zeros(0))
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

    def require(self, iteration: int) -> None:
        """Raise StateLostError unless this learner is where that iteration begins."""
        limit_torch_threads(self._settings.threads)
        if not self._live or self._learner.iteration != iteration:
            raise StateLostError(f"the learner is at iteration {self._learner.iteration}, not at {iteration}")
