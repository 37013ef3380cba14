"""The actors of an asynchronous training, and what the driver does with them in one iteration, which is one update.

The training's state tells what has been learned from, or dropped, until now. What has been made beyond that, or is
being made, is ahead of it: a cache of the future, thrown away where an iteration is interrupted, and in no checkpoint.
So it is as if it had never been: groups go on from where the state says, under the weights of then, and the schedule
has nothing to tell of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ... import runtime
from ..actors import ActorLearnerRun, Collected, Rollouts
from ..clock import Clock
from ..collect.worker import GroupProgress
from ..data.rate_limit import SAMPLED
from ..learn.log import LearnerInput
from ..learner_handle import Update
from ..training_state import IterationOutcome, TrainingState
from .schedule import Choice, Pacing, Record, Recorded, Trajectory


@dataclass
class _Ahead:
    """What is ahead of the state of iteration `iteration`."""

    pacing: Pacing
    iteration: int
    groups: list[GroupProgress]
    """Each group after the last rollout that it has begun."""
    collected: dict[Trajectory, Collected] = field(default_factory=dict)
    """What may still be learned from, or is being made."""
    flying: dict[Trajectory, Collected] = field(default_factory=dict)
    """What is being made, oldest first."""


class AsynchronousRun(ActorLearnerRun):
    """Rollout workers that go on while the learner learns from what they have made before."""

    _ahead: _Ahead | None = None
    _records: Sequence[Record] | None = None

    def follow(self, records: Sequence[Record]) -> None:
        """Do from the initial state on what is recorded, instead of what comes."""
        self._records, self._ahead = records, None

    def iterate(self, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One update from `state`, which `clock` tells the time of."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.iteration != state.iteration:
            ahead = _Ahead(self._pacing(state), state.iteration, list(state.groups))
        outcome = self._update(ahead, state, clock)
        ahead.pacing.learned(int(outcome.metrics.get(SAMPLED, 0)))
        ahead.iteration += 1
        ahead.collected = {each: refs for each, refs in ahead.collected.items() if ahead.pacing.needs(each)}
        self._ahead = ahead  # an iteration that did not get so far leaves nothing
        return outcome

    def _pacing(self, state: TrainingState) -> Pacing:
        if self._records is not None:
            return Recorded(self._records)
        rollouts = [group.rollouts for group in state.groups]
        return self.config.pacing(self.settings, rollouts, state.weights.version)

    def _update(self, ahead: _Ahead, state: TrainingState, clock: Clock) -> IterationOutcome:
        self._begin(ahead, state, clock)
        if ahead.flying and not ahead.pacing.waiting:  # what has come meanwhile goes before what is used again
            self._await_one(ahead, state, clock, timeout=0)
        while (choice := ahead.pacing.choose()) is None:
            self._begin(ahead, state, clock)  # what was dropped for its age has left room
            self._await_one(ahead, state, clock)
        update = self._start(ahead, choice, state, clock)
        self._begin(ahead, state, clock)  # the queue has room now
        while ahead.flying and self._await_one(ahead, state, clock, or_else=update.ends):
            pass
        return self._outcome(ahead, choice, update)

    def _begin(self, ahead: _Ahead, state: TrainingState, clock: Clock) -> None:
        for each in ahead.pacing.begin():
            collected = self.workers.begin(each.group, ahead.groups[each.group], state.weights, clock)
            ahead.groups[each.group] = collected.after
            ahead.collected[each] = ahead.flying[each] = collected
        self.workers.collecting = [collected.stats for collected in ahead.flying.values()]

    def _await_one(
        self,
        ahead: _Ahead,
        state: TrainingState,
        clock: Clock,
        *,
        or_else: tuple[runtime.ObjectRef, ...] = (),
        timeout: float | None = None,
    ) -> bool:
        """Wait until a rollout is whole, and let its group go on. Return False if one of `or_else` is there before
        that, or the seconds are over."""
        by_ref = {collected.stats: each for each, collected in ahead.flying.items()}
        found, _ = runtime.wait([*or_else, *by_ref], timeout=timeout)
        if not found or found[0] in or_else:
            return False
        [ready] = found
        self.workers.stats([ready])  # raises what the environment has raised
        each = by_ref[ready]
        del ahead.flying[each]
        given_up = ahead.pacing.arrived(each)
        if given_up is not None:  # its bytes are not needed any more
            ahead.collected[given_up] = replace(ahead.collected[given_up], rollout=None)
        self._begin(ahead, state, clock)
        return True

    def _start(self, ahead: _Ahead, choice: Choice, state: TrainingState, clock: Clock) -> Update:
        learned = [ahead.collected[each] for each in choice.learned]
        rollouts = Rollouts.of(learned, len(learned) * self._steps)
        return self._begin_update(state, LearnerInput(rollouts.rollouts, clock), rollouts.timesteps)

    @property
    def _steps(self) -> int:
        return self._algorithm.rollout_steps(self.config) * self.settings.environments_per_group

    def _outcome(self, ahead: _Ahead, choice: Choice, update: Update) -> IterationOutcome:
        groups = list(update.state.groups)
        every = (*choice.dropped, *choice.learned)
        fresh = [each for each in every if each.rollout >= groups[each.group].rollouts]  # not learned from before
        for each in fresh:
            groups[each.group] = ahead.collected[each].after
        told = self.workers.results([ahead.collected[each].stats for each in fresh])
        outcome = self._finish(update, len(fresh) * self._steps, tuple(groups), told.episodes)
        own: dict[str, Any] = {"rollout/dropped": len(choice.dropped)}
        record = Record(outcome.state.iteration, update.given.clock, choice)
        metrics = {**outcome.metrics, **told.metrics, **own}
        return replace(
            outcome, metrics=metrics, schedule=record.to_json(), digests=told.digests, examples=told.examples
        )
