"""Several learners that share each minibatch, as the driver sees them.

All of them get each update; the first that is done is asked what it led to. One that dies in an update is missed by
nobody: the others do its part (see `learn.team`). A new one starts in its place and joins where a snapshot of the
learners stands, since it can begin there without learning anything again. If all die, they are brought back as a single
learner is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import runtime
from ..runtime import ActorHandle, ObjectRef, exceptions, get, put
from .chaos import Deaths
from .learn.group_actor import EXCHANGE, GroupLearnerActor
from .learn.log import LearnerInput, LearnerLog, Piece
from .learn.lost import StateLostError
from .learn.parts import Parts
from .learn.team import PATIENCE, Membership
from .learner_handle import LearnerHandle, Update, following, gpus_of_each, log_of, lost, raise_refusal
from .learner_settings import LearnerSettings
from .models.layout import ParameterLayout
from .run import RETRIES, give_up
from .training_state import TrainingState, Weights

GRACE = 30.0
"""Seconds that a learner has to finish an update that another one has finished; after that it is ended."""
_AT_A_TIME = 16
DEAD = (exceptions.ActorError, exceptions.WorkerCrashedError)

logger = logging.getLogger("shoal")


class LearnerGroup:
    """The learners of one training; those that die are replaced. Arguments as of `LearnerHandle`."""

    def __init__(
        self, kind: Callable[..., Any], arguments: Sequence[Any], run: LearnerSettings, deaths: Deaths | None = None
    ) -> None:
        self._deaths = Deaths() if deaths is None else deaths
        self._least, self._most = run.least_learners, run.most_learners
        made = runtime.remote(concurrency_groups={EXCHANGE: _AT_A_TIME})(GroupLearnerActor)
        self._made = made.options(num_gpus=gpus_of_each(run, self._least), max_restarts=0, lineage=False)
        self._arguments = (kind, *arguments)
        self._actors: dict[ActorHandle, ObjectRef] = {}
        """All of them; the reference is ready when the learner is."""
        self.members: list[ActorHandle] = []
        """Those that hold the state of now, and take part in updates."""
        self._updating: dict[ActorHandle, ObjectRef] = {}
        self._attempt, self._failed_starts = 0, 0
        self._is_world, self._divides = run.reproducible == "world", run.shard_optimizer
        self._world: tuple[tuple[ActorHandle, ...], str] | None = None
        self._fill()

    @cached_property
    def description(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """Initial weights (if nothing was learned yet), layout and device. Raises as `LearnerHandle.description`."""
        for _ in range(RETRIES):
            [first], _ = runtime.wait(list(self._actors.values()))
            [actor] = [actor for actor, ref in self._actors.items() if ref == first]
            try:
                return get(first)
            except DEAD as error:
                raise_refusal(error)
                death = error
                self._drop(actor)
        raise death

    def start(self, state: TrainingState, given: LearnerInput, snapshot: bool) -> Update:
        """Let them learn from rollouts, which need not be there yet, and perhaps take a snapshot of themselves then."""
        self._settle()
        if not state.learner.inputs or len(self.members) < self._wanted:
            before = tuple(self.members)
            self._admit(state.learner, self._wanted)
            if self._divides and before and len(self.members) > len(before):
                again = {member: member.restore.remote(state.learner) for member in before}
                for member, ref in again.items():  # each will keep another part
                    self._read(member, ref)
        return self._ask(Update(state, given, snapshot))

    def finish(self, update: Update) -> tuple[Weights, LearnerLog, dict[str, float]]:
        """Wait for an update: the next weights, the log with it, and metrics. Raises what the update raised."""
        state = update.state
        for _ in range(RETRIES):
            for member, metrics in self._finished():
                *led_to, whole = member.led_to.remote(state.version + 1)
                if self._read(member, whole) is None:
                    continue
                if update.due and self._divides:
                    parts = self._parts([other.led_to.remote(state.version + 1)[1] for other in self.members])
                    if parts is None:
                        continue
                    led_to[1] = put(parts)
                return following(update, tuple(led_to), metrics)
            # Nobody held what the update was to begin from: all have died, or an earlier one was interrupted.
            self._world = None
            self._admit(state.learner, self._wanted)
            self._ask(update)
        raise lost(state)

    def ask(self, state: TrainingState, method: str) -> Any:
        """What a method of one of the learners gives, called where `state` stands."""
        for _ in range(RETRIES):
            for member in tuple(self.members):
                try:
                    return get(member.ask.remote(method, state.version))
                except StateLostError:
                    self.members.remove(member)
                except DEAD:
                    self._drop(member)
            self._admit(state.learner, self._wanted)
        raise lost(state)

    def snapshot(self, state: TrainingState) -> tuple[dict[str, Any], tuple[Piece, ...]]:
        """The learners' state where `state` stands, and the transitions that their replay buffers hold there."""
        for _ in range(RETRIES):
            self._settle()
            for member in tuple(self.members):
                taken, new = member.snapshot.remote(state.version, state.learner.inserted)
                own = self._read(member, taken)
                if own is not None and self._divides:
                    parts = self._parts(
                        [other.snapshot.remote(state.version, state.learner.inserted)[0] for other in self.members]
                    )
                    own = parts and parts.whole()
                if own is not None:
                    return own, log_of(state, own, taken, new).transitions
            self._admit(state.learner, self._wanted)
        raise lost(state)

    def close(self) -> None:
        """End them."""
        for actor in self._actors:
            runtime.kill(actor)
        give_up([*self._updating.values(), *self._actors.values()], 0.2)

    # ---- an update

    @property
    def _wanted(self) -> int:
        """How many there must be to go on. Where n are asked for, one is enough once they have begun."""
        elastic = self._least < self._most
        return self._least if elastic or self._is_world or not self._attempt else 1

    def _finished(self) -> Iterator[tuple[ActorHandle, dict[str, float]]]:
        """Members that have finished the update, as they do, and its metrics; those who have lost the state, have died,
        or keep a world waiting, are members no more."""
        waiting, patience = dict(self._updating), None
        while waiting:
            ready, _ = runtime.wait(list(waiting.values()), timeout=patience)
            ended = [member for member, ref in waiting.items() if ref in ready]
            patience = PATIENCE + GRACE if self._is_world or self._divides else None  # who cannot go on without all
            for member in ended or list(waiting):
                ref = waiting.pop(member)
                if not ended:
                    self._end(member, PATIENCE + GRACE)
                elif (metrics := self._read(member, ref)) is not None:
                    yield member, metrics

    def _parts(self, refs: list[ObjectRef]) -> Parts | None:
        """The states of all members, of which each has a part of the moments; None if one of them is not there, and
        nobody holds the state."""
        runtime.wait(refs, num_returns=len(refs), timeout=PATIENCE)
        for ref in refs:
            try:
                get(ref, timeout=0)
            except (StateLostError, exceptions.GetTimeoutError, *DEAD) as error:
                logger.warning("a learner gives no part of a snapshot (%s): all go back to the last one", error)
                self.members.clear()
                return None
        return Parts(tuple(refs))

    def _ask(self, update: Update) -> Update:
        self._attempt += 1
        members = tuple(self.members)
        world = self._meeting_place(members) if self._is_world else None
        self._updating = {
            member: member.update.remote(
                update.given.rollouts,
                update.state.version,
                update.given.clock,
                update.due,
                Membership(self._attempt, members, index, world, self._divides),
                **self._deaths.of_learner(self._attempt, index),
            )
            for index, member in enumerate(members)
        }
        return replace(update, ends=tuple(self._updating.values()))

    def _meeting_place(self, members: tuple[ActorHandle, ...]) -> str:
        """Where a world meets: another place for other members."""
        if self._world is None or self._world[0] != members:
            self._world = members, get(members[0].open_world.remote())
        return self._world[1]

    def _end(self, member: ActorHandle, waited: float) -> None:
        logger.warning("a learner has not finished an update %g s after another one: it is ended", waited)
        runtime.kill(member)
        self._drop(member)

    def _read(self, member: ActorHandle, ref: ObjectRef) -> Any:
        """What a member gives; None if it has died, or does not hold the state: it is no member any more."""
        try:
            return get(ref)
        except StateLostError:
            if member in self.members:
                self.members.remove(member)
        except DEAD:
            self._drop(member)
        return None

    def _settle(self) -> None:
        """See who holds the state after the last update."""
        updating, self._updating = self._updating, {}
        if not updating:
            return
        refs = list(updating.values())
        runtime.wait(refs)
        finished, _ = runtime.wait(refs, num_returns=len(refs), timeout=GRACE)
        for member, ref in updating.items():
            if ref not in finished:
                self._end(member, GRACE)
                continue
            try:
                self._read(member, ref)
            except Exception as error:  # of the update itself: where all have failed `finish` has raised it
                logger.debug("a learner has failed in an update: %s", error)
                self.members.remove(member)

    # ---- who takes part

    def _fill(self) -> None:
        """Start as many as are wanted."""
        for _ in range(self._most - len(self._actors)):
            actor = self._made.remote(*self._arguments)
            self._actors[actor] = actor.describe.remote()

    def _drop(self, actor: ActorHandle) -> None:
        """Forget one that has died, and start another one in its place."""
        if self._actors.pop(actor, None) is None:
            return
        if actor in self.members:
            self.members.remove(actor)
            logger.warning("a learner has died; another one starts in its place")
        self._fill()

    def _admit(self, log: LearnerLog, wanted: int) -> None:
        """Let all that are ready take part, from where a log leads; wait until there are as many as are wanted. Raises
        what keeps learners from starting."""
        while True:
            others = {actor: ref for actor, ref in self._actors.items() if actor not in self.members}
            missing = max(0, wanted - len(self.members))
            refs = list(others.values())
            if missing:
                runtime.wait(refs, num_returns=missing)
            ready = runtime.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
            joining = {actor: actor.restore.remote(log) for actor, ref in others.items() if ref in ready}
            for actor, ref in joining.items():
                try:
                    get(self._actors[actor])
                    get(ref)
                except DEAD as error:
                    raise_refusal(error)
                    self._failed_starts += 1
                    if self._failed_starts >= RETRIES:
                        raise
                    self._drop(actor)
                    continue
                self._failed_starts = 0
                self.members.append(actor)
            if len(self.members) >= wanted:
                return


def start_learners(
    kind: Callable[..., Any], arguments: Sequence[Any], run: LearnerSettings, deaths: Deaths | None = None
) -> LearnerHandle | LearnerGroup:
    """The learner of a training, or its group of learners. Arguments as of `LearnerHandle`."""
    if run.most_learners > 1 and runtime.engine_name() != "serial":
        return LearnerGroup(kind, arguments, run, deaths)
    if run.most_learners > 1:
        logger.warning("one learner instead of %s: on the serial engine they take turns", run.learners)
    return LearnerHandle(kind, arguments, run, deaths)
