"""A worker's part in finding cycles of waits: a long wait is reported to the node, which ends it if it is for ever.

Only a `get` or `wait` without a timeout counts, in the main thread of a worker or of an actor that runs one call at a
time: any other might go on by itself. Who makes an object, its owner knows; the owner is asked, and answers after it
has read all that lay in its sockets, so that it does not speak of a call whose reply it has already been sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from msgspec import Struct, field

from ...core.ids import owner_of
from ...exceptions import DeadlockError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..protocol.wire import Awaited
from .calls import PendingCall
from .links import Links
from .objects import Record
from .reactor import Waiter

# Waits shorter than this, in seconds, are not reported; the next report comes after twice the time, and so on.
_LONG = 1.0
_LOOK_SECONDS = 0.5
# Of a wait for more objects than this, the first ones are enough for `get`; of `wait` nothing is said.
_MOST_OBJECTS = 1000
# A task with several return values has the id of the first; one of the others is looked for so far behind it.
_MOST_RETURNS = 64


class _Wait(Struct, eq=False):
    """The wait that the main thread is in, `since` so long (monotonic seconds)."""

    epoch: int
    waiter: Waiter
    objects: list[m.ObjectId]
    needed: int
    since: float = field(default_factory=time.monotonic)
    next_report: float = field(default_factory=lambda: time.monotonic() + _LONG)
    reported: bool = False
    still_needed: int = 0
    asked: set[m.ObjectId] = field(default_factory=set)
    awaited: dict[m.ObjectId, Awaited] = field(default_factory=dict)
    verdict: str | None = None


class Makers:
    """The makers of the objects that a process owns, for processes that ask."""

    def __init__(self, links: Links, records: Mapping[m.ObjectId, Record], calls: Mapping[bytes, PendingCall]) -> None:
        self._links, self._records, self._calls = links, records, calls

    def on_who_makes(self, asker: Connection, message: m.WhoMakes) -> None:

        def answer() -> None:
            with self._links.lock:
                asker.send(m.MadeBy(message.object, self.of(message.object)))

        self._links.reactor.call_later(0, answer)

    def of(self, object_id: m.ObjectId) -> Awaited:
        """Return the processes that have to go on for an object of this process's own to come; none if not known."""
        pending = self._call_of(object_id)
        if pending is None:
            return Awaited([], "")
        makers = self._makers_of(pending)
        name = pending.name if pending.actor is None else f"{pending.actor.name}.{pending.name}"
        return Awaited(sorted(makers), name)

    def _call_of(self, object_id: m.ObjectId) -> PendingCall | None:
        number = int.from_bytes(object_id[8:], "big")
        for first in range(number, max(0, number - _MOST_RETURNS), -1):
            pending = self._calls.get(object_id[:8] + first.to_bytes(8, "big"))
            if pending is not None and object_id in pending.returns:
                return pending
        # The values of a stream have numbers far behind that of the call.
        streams = ((pending, pending.stream) for pending in self._calls.values())
        return next((pending for pending, stream in streams if stream and object_id in stream.promised), None)

    def _makers_of(self, pending: PendingCall) -> set[m.ProcessId]:
        """Return the processes that run a call, or those that it waits for, however long the chain."""
        makers: set[m.ProcessId] = set()
        seen, left = {pending.task}, [pending]
        while left:
            pending = left.pop()
            lease, actor = pending.lease, pending.actor
            if actor is not None:
                if actor.state == "alive" and actor.process is not None:
                    makers.add(actor.process)
            elif lease is not None and next(iter(lease.inflight), None) == pending.task:
                makers.add(lease.worker)
            for ref in pending.slots if pending.missing else ():
                record = self._records.get(ref.id)
                call = self._call_of(ref.id) if record is not None and record.value is None else None
                if call is not None and call.task not in seen:
                    seen.add(call.task)
                    left.append(call)
        return makers


class BlockedWaits:
    """The long waits of one worker.

    Args:
        what: what runs here, by name; "" if a wait of the calling thread does not count.
    """

    def __init__(
        self, links: Links, records: Mapping[m.ObjectId, Record], makers: Makers, what: Callable[[], str]
    ) -> None:
        self._links, self._records, self._makers, self._what = links, records, makers, what
        self._wait: _Wait | None = None
        self._name = ""
        self._epochs = 0
        self._looking = False

    def begin(self, waiter: Waiter, objects: list[m.ObjectId], needed: int) -> bool:
        """The calling thread is about to wait without limit. False if that does not count."""
        name = self._what()
        if not name:
            return False
        self._name = name
        self._epochs += 1
        self._wait = _Wait(self._epochs, waiter, objects, needed)
        if not self._looking:
            self._looking = True
            self._links.reactor.call_later(_LOOK_SECONDS, self._look)
        return True

    def end(self) -> None:
        """It waits no more.

        Raises:
            DeadlockError: since it would have waited for ever.
        """
        wait, self._wait = self._wait, None
        if wait is not None and wait.reported:
            with self._links.lock:
                self._links.node.send(m.GoesOn())
        if wait is not None and wait.verdict is not None:
            raise DeadlockError(wait.verdict)

    def _look(self) -> None:
        with self._links.lock:
            wait = self._wait
            self._looking = wait is not None
            if wait is None:
                return
            now = time.monotonic()
            if now >= wait.next_report:
                wait.next_report = now + 2 * (now - wait.since)
                self._report(wait)
            self._links.reactor.call_later(_LOOK_SECONDS, self._look)

    def _report(self, wait: _Wait) -> None:
        """Find the makers of what is awaited, and tell the node once all are known."""
        records = self._records
        there = sum(object_id in records and records[object_id].value is not None for object_id in wait.objects)
        missing = [i for i in wait.objects if i in records and records[i].value is None]
        if not missing or (len(missing) > _MOST_OBJECTS and wait.needed < len(wait.objects)):
            return
        wait.awaited, wait.asked = {}, set()
        for object_id in missing[:_MOST_OBJECTS]:
            owner = owner_of(object_id)
            if owner == self._links.me:
                wait.awaited[object_id] = self._makers.of(object_id)
                continue
            peer = self._links.peer(owner)
            if peer is not None:
                wait.asked.add(object_id)
                peer.send(m.WhoMakes(object_id))
        wait.still_needed = min(wait.needed - there, len(missing), _MOST_OBJECTS)
        self._tell(wait)

    def _tell(self, wait: _Wait) -> None:
        if not wait.asked:
            wait.reported = True
            what = f"{self._name} (pid {os.getpid()})"
            self._links.node.send(m.Waits(wait.epoch, what, wait.still_needed, list(wait.awaited.values())))

    def on_made_by(self, owner: Connection, message: m.MadeBy) -> None:
        wait = self._wait
        if wait is not None and message.object in wait.asked:
            wait.asked.discard(message.object)
            wait.awaited[message.object] = message.by
            self._tell(wait)

    def on_ask_wait(self, node: Connection, message: m.AskWait) -> None:

        def answer() -> None:
            with self._links.lock:
                if self._wait is not None and self._wait.epoch == message.epoch:
                    self._report(self._wait)

        self._links.reactor.call_later(0, answer)  # what lies in the sockets may end the wait

    def on_deadlocked(self, node: Connection, message: m.Deadlocked) -> None:
        wait = self._wait
        if wait is not None and wait.epoch == message.epoch and not wait.waiter.ready:
            wait.verdict = message.reason
            wait.waiter.finish()
