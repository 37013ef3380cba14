"""Rollout workers and a learner that take turns, as the driver sees them.

Rollouts are asked for while the learner is still at the weights that they are made with, so that workers begin as soon
as these are there, and the driver tells of an iteration (hashes, files, callbacks) during the next one. See `ahead`.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cached_property

from .actors import ActorLearnerRun, Rollouts
from .ahead import Ahead, looks_ahead, place_of
from .clock import Clock
from .learn.log import LearnerInput
from .learner_handle import Update
from .training_state import IterationOutcome, TrainingState, Weights


class SynchronousRun(ActorLearnerRun):
    """All groups act under the same weights, then the learner updates them."""

    _under_way: Rollouts | None = None
    _seconds = math.inf
    """From the beginning of the iteration before to that of this one."""
    _began = -math.inf

    @cached_property
    def _ahead(self) -> Ahead[Rollouts]:
        return Ahead()

    def iterate(self, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration from `state`, which `clock` tells the time of."""
        now = time.perf_counter()
        self._seconds, self._began = now - self._began, now
        self._under_way = self._ahead.take((clock, place_of(state))) or self.workers.collect(state, clock)
        try:
            return self.learn(state, self._under_way, clock)
        except BaseException:  # also Ctrl-C: it goes on to the user
            self._ahead.forget()
            raise

    def _begin_update(self, state: TrainingState, given: LearnerInput, timesteps: int) -> Update:
        update = super()._begin_update(state, given, timesteps)
        following, under_way = given.clock.after(timesteps), self._under_way
        if under_way is None or state.cycles != (0, 1) or not update.led_to or not following.remaining:
            return update  # of several learners it is not known yet which one's weights these will be
        if looks_ahead(self.settings, self.workers.recovery, self._seconds):
            after = replace(
                state,
                iteration=state.iteration + 1,
                timesteps=following.timesteps,
                weights=Weights(state.version + 1, update.led_to[0]),
                groups=under_way.groups,
            )
            rollouts = self.workers.collect(after, following, beside=under_way)
            states = [group.ref for group in rollouts.groups if group.ref is not None]
            self._ahead.hold((following, place_of(after)), rollouts, rollouts.stats, [*rollouts.rollouts, *states])
        return update

    def end_actors(self) -> None:
        """End those that were started."""
        self._ahead.forget()
        super().end_actors()
        self._ahead.give_up(0.2)
