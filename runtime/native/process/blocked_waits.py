"""A worker's part in finding cycles of waits: who waits long says for whom, to the node, and hears if it is for ever.

Only a `get` or `wait` without a timeout counts, in the main thread of a worker or of an actor that runs one call at a
time: any other might go on by itself. Who makes an object, its owner knows; the owner is asked, and answers after it
has read all that lay in its sockets, so that it does not speak of a call whose reply it has already been sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ...exceptions import DeadlockError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..protocol.wire import Awaited
from .calls import Pending
from .client import Client
from .objects import owner_of
from .reactor import Waiter

# Waits shorter than this, in seconds, nobody hears of; the next report comes after twice the time, and so on.
_LONG = 1.0
_LOOK_SECONDS = 0.5
# Of a wait for more objects than this, the first ones are enough for `get`; of `wait` nothing is said.
_MOST_OBJECTS = 1000
# A task with several return values has the id of the first; one of the others is looked for so far behind it.
_MOST_RETURNS = 64


class _Wait:
    """The wait that the main thread is in."""

    def __init__(self, epoch: int, waiter: Waiter, objects: list[m.ObjectId], needed: int) -> None:
        self.epoch, self.waiter, self.objects, self.needed = epoch, waiter, objects, needed
        self.since = time.monotonic()
        self.next_report = self.since + _LONG
        self.reported = False
        self.still_needed = needed
        self.asked: set[m.ObjectId] = set()
        self.awaited: dict[m.ObjectId, Awaited] = {}
        self.verdict: str | None = None


class Makers:
    """The makers of the objects that a process owns, for processes that ask."""

    def __init__(self, client: Client) -> None:
        self._client = client
        client.handlers[m.WhoMakes] = self._on_who_makes

    def _on_who_makes(self, asker: Connection, message: m.WhoMakes) -> None:
        def answer() -> None:
            with self._client.lock:
                asker.send(m.MadeBy(message.object, self.of(message.object)))

        self._client.reactor.call_later(0, answer)

    def of(self, object_id: m.ObjectId) -> Awaited:
        """Return the processes that have to go on for an object of this process's own to come; none if not known."""
        pending = self._call_of(object_id)
        if pending is None:
            return Awaited([], "")
        makers: set[m.ProcessId] = set()
        self._collect(pending, makers, set())
        name = pending.name if pending.link is None else f"{pending.link.name}.{pending.name}"
        return Awaited(sorted(makers), name)

    def _call_of(self, object_id: m.ObjectId) -> Pending | None:
        number = int.from_bytes(object_id[8:], "big")
        for first in range(number, max(0, number - _MOST_RETURNS), -1):
            pending = self._client.calls.get(object_id[:8] + first.to_bytes(8, "big"))
            if pending is not None and object_id in pending.returns:
                return pending
        # The values of a stream have numbers far behind that of the call.
        streams = ((pending, pending.stream) for pending in self._client.calls.values())
        return next((pending for pending, stream in streams if stream and object_id in stream.promised), None)

    def _collect(self, pending: Pending, makers: set[m.ProcessId], seen: set[m.ObjectId]) -> None:
        seen.add(pending.task)
        lease, link = pending.lease, pending.link
        if link is not None:
            if link.state == "alive" and link.process is not None:
                makers.add(link.process)
        elif lease is not None and next(iter(lease.inflight), None) == pending.task:
            makers.add(lease.worker)
        if pending.missing:
            for ref in pending.slots:
                record = self._client.objects.records.get(ref.id)
                call = self._call_of(ref.id) if record is not None and record.value is None else None
                if call is not None and call.task not in seen:
                    self._collect(call, makers, seen)


class BlockedWaits:
    """The long waits of one worker.

    Args:
        client: this process.
        makers: who makes what this process owns.
        what: what runs here, by name; "" if a wait of the calling thread does not count.
    """

    def __init__(self, client: Client, makers: Makers, what: Callable[[], str]) -> None:
        self._client, self._makers, self._what = client, makers, what
        self._wait: _Wait | None = None
        self._name = ""
        self._epochs = 0
        self._looking = False
        client.handlers |= {m.MadeBy: self._on_made_by, m.AskWait: self._on_ask_wait, m.Deadlocked: self._on_deadlocked}

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
            self._client.reactor.call_later(_LOOK_SECONDS, self._look)
        return True

    def end(self) -> None:
        """It waits no more.

        Raises:
            DeadlockError: since it would have waited for ever.
        """
        wait, self._wait = self._wait, None
        if wait is not None and wait.reported:
            with self._client.lock:
                self._client.node.send(m.GoesOn())
        if wait is not None and wait.verdict is not None:
            raise DeadlockError(wait.verdict)

    def _look(self) -> None:
        with self._client.lock:
            wait = self._wait
            self._looking = wait is not None
            if wait is None:
                return
            now = time.monotonic()
            if now >= wait.next_report:
                wait.next_report = now + 2 * (now - wait.since)
                self._report(wait)
            self._client.reactor.call_later(_LOOK_SECONDS, self._look)

    def _report(self, wait: _Wait) -> None:
        """Find the makers of what is awaited, and tell the node once all are known."""
        records = self._client.objects.records
        there = sum(object_id in records and records[object_id].value is not None for object_id in wait.objects)
        missing = [i for i in wait.objects if i in records and records[i].value is None]
        if not missing or (len(missing) > _MOST_OBJECTS and wait.needed < len(wait.objects)):
            return
        wait.awaited, wait.asked = {}, set()
        for object_id in missing[:_MOST_OBJECTS]:
            owner = owner_of(object_id)
            if owner == self._client.me:
                wait.awaited[object_id] = self._makers.of(object_id)
                continue
            peer = self._client.peer(owner)
            if peer is not None:
                wait.asked.add(object_id)
                peer.send(m.WhoMakes(object_id))
        wait.still_needed = min(wait.needed - there, len(missing), _MOST_OBJECTS)
        self._tell(wait)

    def _tell(self, wait: _Wait) -> None:
        if not wait.asked:
            wait.reported = True
            what = f"{self._name} (pid {os.getpid()})"
            self._client.node.send(m.Waits(wait.epoch, what, wait.still_needed, list(wait.awaited.values())))

    def _on_made_by(self, owner: Connection, message: m.MadeBy) -> None:
        wait = self._wait
        if wait is not None and message.object in wait.asked:
            wait.asked.discard(message.object)
            wait.awaited[message.object] = message.by
            self._tell(wait)

    def _on_ask_wait(self, node: Connection, message: m.AskWait) -> None:
        def answer() -> None:
            with self._client.lock:
                if self._wait is not None and self._wait.epoch == message.epoch:
                    self._report(self._wait)

        self._client.reactor.call_later(0, answer)  # what lies in the sockets may end the wait

    def _on_deadlocked(self, node: Connection, message: m.Deadlocked) -> None:
        wait = self._wait
        if wait is not None and wait.epoch == message.epoch and not wait.waiter.ready:
            wait.verdict = message.reason
            wait.waiter.finish()
