"""Lost objects of one process: noticed, reported to their owner, made again.

    reader ──Lost──▶ owner: forget the value ──▶ Lineage: run the task again, its lost arguments' tasks first
    reader ◀─Ready── owner: the value is there again

Threads that wait go on waiting. A block has one place and generation for ever, so the block that could not be read says
which value was meant: a report about one that has been replaced since changes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from ...core.ids import node_of, owner_of
from ...core.refs import ObjectRef, short
from ...core.reports.events import AGAIN, LOST
from ...exceptions import ObjectLostError, ObjectReconstructionFailedError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.store import Store
from .calls import Keeper, PendingCall
from .failures import failure
from .lineage import Fail, Forget, Interrupt, Lineage, Resubmit, Why
from .links import Links
from .objects import Record, spans_of
from .values import Values

# What a kept task takes besides its arguments, roughly, bytes.
_OVERHEAD = 2000

_EXPLANATIONS = {
    Why.PUT: "it was stored by put in process {pid}, so no task can make it again. Return it from a task instead",
    Why.NO_RETRIES: "what made it must not be run again. Raise max_retries of the task, max_task_retries of the actor",
    Why.METHOD: "a method of an actor made it. Create the actor with max_restarts and max_task_retries; where it comes "
    "back with its state, no method is run twice: return large values from a task",
    Why.NO_LINEAGE: "the actor whose method made it was created with lineage=False: it keeps nothing to make it again",
    Why.ACTOR_ENDED: "the actor whose method made it has ended",
    Why.CANCELLED: "the generator that yielded it was cancelled, and what is cancelled is not run again",
    Why.EVICTED: "what is needed to make it again was dropped. Raise init(max_lineage_bytes=…)",
}


class _Call:
    """A call as lineage keeps it: without the references to arguments that can be made again."""

    def __init__(self, pending: PendingCall) -> None:
        self.pending = pending
        self.lifetime = None if pending.actor is None else pending.actor.lifetime
        self.arguments = [ref for ref in pending.keeps if ref.id != self.lifetime]  # a result must not keep its actor
        self.slots = [ref.id for ref in pending.slots]
        self.held: list[ObjectRef] = []

    def use_retry(self) -> Why | None:
        why = _why_not_again(self.pending)
        return why if why is not None or self.pending.use_retry() else Why.NO_RETRIES

    def lost(self, result: m.ObjectId) -> bool:
        return self.pending.stream is None or self.pending.stream.lost(result)


class Recovery(Keeper):
    """What a process does about losses."""

    def __init__(self, links: Links, values: Values, store: Store, lineage: Lineage) -> None:
        self._links, self._values, self._store, self.lineage = links, values, store, lineage
        self._acting = False

    # Events -----------------------------------------------------------------------------------------------------

    def ended(self, pending: PendingCall) -> None:
        made = pending.returns if pending.stream is None else [*pending.returns, *pending.stream.outside]
        results = [object_id for object_id in made if self._may_be_lost(object_id)]
        why = _why_not_again(pending)
        if why is not None or not results:
            self.lineage.not_kept(pending.task, results, why or Why.NO_RETRIES)
            self._release(pending)
            return
        call = _Call(pending)
        noted = [ref.id for ref in call.arguments if self.lineage.can_make(ref.id)]
        call.held = [ref for ref in call.arguments if not self.lineage.can_make(ref.id)]
        call.arguments = pending.keeps = pending.slots = []
        self.lineage.finished(pending.task, call, results, noted, self._size(call))
        for object_id in results:
            self._values.objects.settle(object_id)  # it may have been made again for a task that ended meanwhile

    def _may_be_lost(self, object_id: m.ObjectId) -> bool:
        """Return whether a value lies outside, or was let go of since it can be made again."""
        record = self._values.objects.records.get(object_id)
        return record is not None and (record.value is None or bool(spans_of(record.value)))

    def yielded(self, pending: PendingCall, object_id: m.ObjectId) -> None:
        why = _why_not_again(pending)
        if why is None:
            known = self.lineage.tasks.get(pending.task)
            self.lineage.yielded(pending.task, _Call(pending) if known is None else known.call, object_id)
        else:
            self.lineage.not_kept(object_id, [object_id], why)

    def on_lost(self, connection: Connection, message: m.Lost) -> None:
        self.lost([message.object], message.span)
        self._values.on_request(connection, message)

    def lost(self, object_ids: Iterable[m.ObjectId], span: m.Span) -> None:
        """A block of one of these objects cannot be read: its value is awaited from now on.

        What else of them is lost is found out, so that all of it is made again at the same time.
        """
        for object_id in object_ids:
            record = self._values.objects.records.get(object_id)
            if record is not None and record.value is not None:  # else it is about to be made again
                gone = span if span in spans_of(record.value) else self._unreadable(record.value)
                if gone is not None:
                    self._lose(object_id, record, gone)
        self._values.act()

    def _unreadable(self, value: m.Value) -> m.Span | None:
        store, nodes = self._store, self._links.nodes
        for span in spans_of(value):
            if not (store.has(span) if store.is_near(span) else node_of(span.maker) in nodes):
                return span
        return None

    def _lose(self, object_id: m.ObjectId, record: Record, span: m.Span) -> None:
        if owner_of(object_id) == self._links.me:
            self._lose_mine(object_id, record)
            task = self.lineage.makers.get(object_id)
            for other in [] if task is None else list(task.results):  # one run makes all of them again
                theirs = self._values.objects.records.get(other)
                if theirs is not None and theirs.value is not None and self._unreadable(theirs.value) is not None:
                    self._lose_mine(other, theirs)
            return
        record.value = record.inner = None
        record.asked, record.absent = True, False
        self._values.ask_owner(object_id, m.Lost(object_id, span))

    def _lose_mine(self, object_id: m.ObjectId, record: Record) -> None:
        self._links.note((time.monotonic(), LOST, object_id, None))
        self._values.objects.take_value(record)
        self.lineage.lost(object_id)

    def lost_argument(self, pending: PendingCall, span: m.Span) -> bool:
        self.lost([ref.id for ref in pending.slots], span)
        return span not in spans_of(pending.arguments)

    def act(self) -> bool:
        """Carry out what the lineage asks for; False if that is just being done further up the stack."""
        commands = self.lineage.commands
        if self._acting:
            return False
        self._acting = True
        try:
            while commands:
                command = commands.popleft()
                if isinstance(command, Resubmit):
                    assert isinstance(command.call, _Call)
                    self._resubmit(command.call, command.arguments)
                elif isinstance(command, Interrupt):
                    assert isinstance(command.call, _Call)
                    self._interrupt(command.call.pending)
                elif isinstance(command, Forget):
                    assert isinstance(command.call, _Call)
                    command.call.held = []
                    self._release(command.call.pending)
                elif isinstance(command, Fail):
                    self._values.fulfil(command.object, failure(_error(command.object, command.why)))
                else:
                    self._values.objects.settle(command.object)
        finally:
            self._acting = False
        return True

    # Commands ---------------------------------------------------------------------------------------------------

    def _resubmit(self, call: _Call, arguments: Iterable[m.ObjectId]) -> None:
        values, pending = self._values, call.pending
        self._links.note((time.monotonic(), AGAIN, pending.task, "a result of it was lost"))
        held = [*call.held, *(values.adopt(object_id) for object_id in arguments)]
        by_id = {ref.id: ref for ref in held}
        pending.slots = [by_id[object_id] for object_id in call.slots]
        pending.keeps = held
        if call.lifetime is not None:
            pending.keeps = [values.adopt(call.lifetime), *held]
        call.held = []
        for ref in held:
            if owner_of(ref.id) == self._links.me and values.objects.records[ref.id].value is None:
                self.lineage.lost(ref.id)
        pending.sender.resubmit(pending)

    def _interrupt(self, pending: PendingCall) -> None:
        assert pending.stream is not None, "other results are all there only when their task has ended"
        self._links.note((time.monotonic(), AGAIN, pending.task, "a value of it was lost"))
        pending.stream.interrupt()

    def _release(self, pending: PendingCall) -> None:
        pending.keeps = pending.slots = []
        self._values.objects.discard(pending.arguments)

    def _size(self, call: _Call) -> int:
        pending = call.pending
        values = [pending.arguments]
        for ref in call.held:
            record = self._values.objects.records.get(ref.id)
            if record is not None and record.value is not None:
                values.append(record.value)
        return _OVERHEAD + sum(map(_bytes_in, values)) + sum(span.size for span in spans_of(pending.arguments))


def _why_not_again(pending: PendingCall) -> Why | None:
    """Return why a call must not be made again for the sake of its results; None if it may."""
    extras, actor = pending.extras, pending.actor
    if extras is not None and extras.cancelled:
        return Why.CANCELLED
    if actor is not None and actor.state == "dead":
        return Why.ACTOR_ENDED
    if actor is not None and actor.checkpointed:
        return Why.METHOD  # it must not run twice
    if actor is not None and not actor.lineage:
        return Why.NO_LINEAGE
    if pending.retries == 0:
        had_some = extras is not None and extras.attempt > 1
        return Why.METHOD if actor is not None and not had_some else Why.NO_RETRIES
    return None


def _bytes_in(value: m.Value) -> int:
    """Return how much of a value lies in this process's memory."""
    return sum(len(part) for part in value.parts if isinstance(part, bytes))


def _error(object_id: m.ObjectId, why: Why) -> ObjectLostError:
    kind = ObjectLostError if why is Why.PUT else ObjectReconstructionFailedError
    explanation = _EXPLANATIONS[why].format(pid=os.getpid())
    return kind(f"object {short(object_id)} is lost: its block of shared memory cannot be read, and {explanation}")
