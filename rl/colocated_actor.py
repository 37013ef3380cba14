"""The actor that is rollout worker and learner at once: it runs the cycles of an iteration by itself.

    update(groups, version, clock, cycles) → (next weights, snapshot, …, states of the groups, …, metrics)

Where one worker steps all environments it waits while the learner learns, and the other way round; in one process
nothing is lost by that, and what would travel between them each few steps stays where it is. Both are what they are
apart, `RolloutWorker` and `LearnerActor`, and are asked for the same rollouts and updates in the same order: so the
bits are the same.

This module doesn't import torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..envs import begin_generators
from ..runtime import method
from .chaos import Death, dying
from .clock import Clock
from .collect.rollout_stats import RolloutStats, stats_of_groups
from .collect.worker import GroupProgress, RolloutWorker
from .cycles import metrics_of, stats_of_cycles
from .data.rollout import Rollout
from .learn.actor import LearnerActor
from .learn.log import LearnerLog
from .models.layout import ParameterLayout


class ColocatedActor:
    """Actor class; `worker` and `learner` are the arguments of a `RolloutWorker` and of a `LearnerActor`."""

    def __init__(self, worker: Mapping[str, Any], learner: Sequence[Any]) -> None:
        self._worker, self._learner = RolloutWorker(**worker, shared=False), LearnerActor(*learner)

    def update(
        self,
        groups: Sequence[GroupProgress],
        version: int,
        clock: Clock,
        cycles: int,
        deaths: tuple[Death | None, Death | None],
    ) -> tuple[Any, ...]:
        """Make so many cycles from where the groups are, after `version` updates; perhaps die: of `deaths` of a worker
        and of a learner the points are counted over all rollouts, or updates, of the call.

        Returns what `LearnerActor.update` does, with a snapshot; before the metrics the state of each group, and what
        else the rollouts tell. Raises StateLostError as that does, and what the environments raise.
        """
        worker, learner = self._worker, self._learner
        for index in range(len(groups)):
            worker.raise_reported(index)
        learner.require(version)
        told: list[RolloutStats] = []
        metrics: list[dict[str, float]] = []
        of_worker, of_learner = deaths
        asked = time.perf_counter()
        with worker.own_generators():
            for cycle in range(cycles):
                weights, rollouts, stats = learner.weights(), [], []
                for index, group in enumerate(groups):
                    progress = replace(group, rollouts=group.rollouts + cycle)
                    begin_generators(worker.seed_of(index, progress.rollouts))
                    death = of_worker and of_worker.within(cycle * len(groups) + index, worker.rollout_steps)
                    rollout, own = worker.play(index, progress, weights, version + cycle, clock, death=death)
                    rollouts.append(rollout)
                    stats.append(own)
                told.append(stats_of_groups(stats, 1))
                joined, started = Rollout.side_by_side(rollouts), time.perf_counter()
                with dying(of_learner and of_learner.within(cycle, 2)):
                    metrics.append(learner.advance(joined, clock))
                clock = clock.after(joined.steps.rows)
                now = time.perf_counter()
                metrics[-1] |= {"time/update_seconds": now - started, "time/learner_wait_seconds": 0.0}
                asked = worker.ask(asked, now)
            weights = learner.finish(joined, metrics[-1])
            states = [worker.state(index) for index in range(len(groups))]
        return (weights, *learner.take_snapshot(), *states, stats_of_cycles(told), metrics_of(metrics))

    def close(self) -> None:
        """Close all environments; the driver asks for it before it ends the actor."""
        self._worker.close()

    def describe(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """As `LearnerActor.describe`."""
        return self._learner.describe()

    @method(num_returns=2)
    def snapshot(self, iteration: int, inserted: int) -> tuple[dict[str, Any], Any]:
        """As `LearnerActor.snapshot`."""
        return self._learner.snapshot(iteration, inserted)

    def restore(self, log: LearnerLog) -> None:
        """As `LearnerActor.restore`; each iteration ends with a snapshot, so there is nothing to repeat."""
        self._learner.restore(log)
