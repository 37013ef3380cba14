"""The objects of one process: references counted, values stored and sent to the processes that ask for them.

What is counted is decided by `ObjectTable`, a state machine; what it asks for is carried out here.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ...core.engine import KeepsValues
from ...core.ids import owner_of
from ...core.refs import ObjectRef, short
from ...core.reports.events import FREED, PUT, RECORD_CALL_SITES, call_site
from ...core.values.unread import UnreadFailures
from ...exceptions import InternalError, OwnerDiedError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..protocol.loop import show
from ..store.store import Store
from .failures import failure, freed
from .lineage import Lineage
from .links import Links
from .objects import FreeBlocks, Gone, ObjectTable, Record, SendLend, SendRelease, size_of


class Values(KeepsValues):
    """What this process owns or has references to.

    Attributes:
        objects: all records.
        me: this process.
        lock: guards them, and all other state of the process.
        on_gone: what to do once no reference to an object is left in this process.
        make_again: carries out what the lineage asks for; False if that is just being done further up the stack.
        sites: where objects of this process were made, if that is recorded.
    """

    def __init__(self, links: Links, store: Store, lineage: Lineage) -> None:
        self._links, self._store, self._lineage = links, store, lineage
        self.me, self.lock = links.me, links.lock
        self.objects = ObjectTable(links.me, links.dead, UnreadFailures(), lineage.needed)
        self.on_gone: dict[bytes, Callable[[], object]] = {}
        self.make_again: Callable[[], bool] = lambda: False
        self.sites: dict[bytes, str] | None = {} if os.environ.get(RECORD_CALL_SITES) == "1" else None
        self._dropped: deque[bytes] = deque()
        self._kept: set[ObjectRef] = set()  # which live as long as this process
        self._asked_for: dict[bytes, list[bytes]] = {}
        self._numbers = 0

    # References -------------------------------------------------------------------------------------------------

    def new_ids(self, count: int) -> list[bytes]:
        """Return ids for objects of this process's own."""
        first = self._numbers + 1
        self._numbers += count
        return [self.me + number.to_bytes(8, "big") for number in range(first, first + count)]

    def new_ref(self, object_id: bytes, site: str | None = None) -> ObjectRef:
        """Return the first reference to a new object, made at the line of the user's that `site` names, or here."""
        self.objects.create(object_id)
        if self.sites is not None:
            self.sites[object_id] = site or call_site()
        return ObjectRef(object_id, self._drop)

    def site_of(self, object_id: bytes) -> str:
        """Return where an object was made; "" if that is not known."""
        return "" if self.sites is None else self.sites.get(object_id, "")

    def adopt(self, object_id: bytes, given: int = 0, by: bytes | None = None) -> ObjectRef:
        """Return one more reference; `given`: it was lent to us with a message, sent `by` a process."""
        with self.lock:
            if self.objects.hold(object_id, given, by) is None:
                self.objects.create(object_id)
                self.fulfil(object_id, freed(object_id))
        return ObjectRef(object_id, self._drop)

    def keep(self, ref: ObjectRef) -> bytes:
        self._kept.add(ref)
        return ref.id

    def borrow(self, object_id: bytes) -> ObjectRef:
        """Return a reference to an object that was not lent to this process, by lending it to itself."""
        with self.lock:
            owner = owner_of(object_id)
            peer = None if owner == self.me else self._links.peer(owner)
            if peer is not None:
                peer.send(m.Lend(object_id, self.me))
            return self.adopt(object_id, given=0 if owner == self.me else 1)

    def adopt_all(self, values: Iterable[m.Value], by: bytes | None) -> list[ObjectRef]:
        """Return references for those that came inside values, sent `by` a process."""
        return [self.adopt(object_id, given=1, by=by) for value in values for object_id in value.refs]

    def lend_all(self, value: m.Value, to: bytes) -> None:
        """Announce that a value with its references is about to be sent to a process; then send the announcements."""
        for object_id in value.refs:
            self.objects.lend(object_id, to)
        if self.objects.commands:
            self.act()

    def _drop(self, object_id: bytes) -> None:
        self._dropped.append(object_id)
        self._links.reactor.nudge()

    def tidy(self) -> None:
        """Count views and references that have ended; before this process sleeps."""
        self._store.drain()
        if self._dropped:
            with self.lock:
                self.settle_drops()

    def settle_drops(self) -> None:
        """Count references that have ended since the last time; called under the lock."""
        dropped, drop = self._dropped, self.objects.drop
        while dropped:
            drop(dropped.popleft())
        if self.objects.commands:
            self.act()

    def act(self) -> None:
        """Carry out what the object table asks for, and the lineage of its objects; called under the lock."""
        commands, lineage = self.objects.commands, self._lineage
        while commands or (lineage.commands and self.make_again()):
            if not commands:
                continue
            command = commands.popleft()
            if isinstance(command, FreeBlocks):
                self._free_blocks(command.spans)
                continue
            if not isinstance(command, SendLend) and command.object in self.on_gone:
                self.on_gone.pop(command.object)()
            if isinstance(command, Gone):
                if lineage.makers or lineage.reasons:
                    lineage.dropped(command.object)
                self._links.note((time.monotonic(), FREED, command.object, None))
                if self.sites is not None:
                    self.sites.pop(command.object, None)
                continue
            peer = self._links.peer(owner_of(command.object))
            if peer is None:
                continue
            if isinstance(command, SendRelease):
                peer.post(m.Release(command.object, command.count))
                self._links.reactor.flush_soon(peer)
            else:
                peer.send(m.Lend(command.object, command.to))

    def _free_blocks(self, spans: list[m.Span]) -> None:
        """Tell the makers of blocks that they can be reused."""
        by_maker: dict[bytes, list[m.Span]] = {}
        for span in spans:
            by_maker.setdefault(span.maker, []).append(span)
        for maker, theirs in by_maker.items():
            peer = None if maker == self.me else self._links.peer(maker)
            if peer is not None:
                peer.post(m.Free(theirs))
                self._links.reactor.flush_soon(peer)
            elif maker != self.me:
                self._links.node.send(m.Free(theirs))
            else:
                self._free_own(theirs)

    def on_free(self, peer: Connection, message: m.Free) -> None:
        self._free_own(message.spans)

    def _free_own(self, spans: list[m.Span]) -> None:
        try:
            self._store.free(spans)
        except InternalError:  # a leak at worst, and the fault of neither who reads it nor who passes it on
            show()

    # Values -----------------------------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        if self._dropped:
            with self.lock:
                self.settle_drops()  # first, so that the new value may take the place of one that is not needed
        packed, inner = self._store.pack(value, self.me)
        with self.lock:
            self.settle_drops()
            ref = self.new_ref(self.new_ids(1)[0])
            self.objects.fulfil(ref.id, packed, inner)
            self._links.note((time.monotonic(), PUT, ref.id, size_of(packed)))
        return ref

    def fulfil(self, object_id: bytes, value: m.Value, by: bytes | None = None) -> None:
        """Store an object's value, sent `by` a process, and answer the processes that asked for it."""
        self.objects.fulfil(object_id, value, self.adopt_all((value,), by) if value.refs else None)
        for asker in self._asked_for.pop(object_id, ()):
            self._send(asker, object_id, value)

    def discard(self, values: Iterable[m.Value], by: bytes | None) -> None:
        """Discard values, sent `by` a process, that are not wanted; what they contain was lent to us all the same."""
        for value in values:
            self.adopt_all((value,), by)
            self.objects.discard(value)

    def free(self, *values: m.Value) -> None:
        """Free the memory of values that were made here and go nowhere after all; called under the lock."""
        for value in values:
            self.objects.discard(value)
        self.act()

    def await_value(self, ref: ObjectRef, notify: Callable[[], None]) -> Record:
        """Return a reference's record; have `notify` called once its value is there, if it isn't yet."""
        record = self.objects.records[ref.id]
        self.ask_for(ref.id, record)
        if record.value is None:
            if record.waiters is None:
                record.waiters = []
            record.waiters.append(notify)
        return record

    def ask_for(self, object_id: bytes, record: Record) -> None:
        """Ask an object's owner for its value, once."""
        if record.value is None and not record.asked:
            record.asked = True
            self.ask_owner(object_id, m.Request(object_id))

    def ask_owner(self, object_id: bytes, question: m.Request | m.Lost) -> None:
        """Ask an object's owner for its value; the object fails if the owner is dead."""
        owner = owner_of(object_id)
        peer = self._links.peer(owner)
        if peer is not None:
            peer.send(question)
        elif (reason := self._links.death_of(owner)) is not None:
            self._fail_orphan(object_id, reason)

    def on_request(self, connection: Connection, message: m.Request | m.Lost) -> None:
        """Event: another process asks for a value."""
        asker = connection.peer
        assert asker is not None, "the first message on a connection is Hello"
        record = self.objects.records.get(message.object)
        if record is None:
            self._send(asker, message.object, freed(message.object))
        elif record.value is None:
            self._asked_for.setdefault(message.object, []).append(asker)
            connection.send(m.NotYet(message.object))
        else:
            self._send(asker, message.object, record.value)

    def on_ready(self, owner: Connection, message: m.Ready) -> None:
        self.fulfil(message.object, message.value, owner.peer)

    def on_lend(self, lender: Connection, message: m.Lend) -> None:
        self.objects.lent(message.object, message.to)

    def on_release(self, borrower: Connection, message: m.Release) -> None:
        assert borrower.peer is not None, "the first message on a connection is Hello"
        self.objects.released(message.object, borrower.peer, message.count)

    def _send(self, to: bytes, object_id: bytes, value: m.Value) -> None:
        peer = self._links.peer(to)
        if peer is not None:
            self.lend_all(value, to)
            self.objects.was_sent(object_id)
            peer.send(m.Ready(object_id, value))

    # Ends -------------------------------------------------------------------------------------------------------

    def on_death(self, process: bytes, reason: str) -> None:
        """Event: a process is dead. Fail what it owned, and forget what it held."""
        for object_id in self.objects.process_died(process):
            self._fail_orphan(object_id, reason)
        self._store.process_died(process)

    def _fail_orphan(self, object_id: bytes, reason: str) -> None:
        error = OwnerDiedError(f"object {short(object_id)} is lost: the process that owned it is gone: {reason}")
        self.fulfil(object_id, failure(error))

    def on_node_lost(self) -> None:
        """Event: the node is gone. Fail all objects that have no value yet."""
        value = failure(self._links.gone())
        for object_id, record in list(self.objects.records.items()):
            if record.value is None:
                self.objects.fulfil(object_id, value)

    def table_sizes(self) -> dict[str, int]:
        """Return how many entries each table has."""
        return {
            "records": len(self.objects.records),
            "on_gone": len(self.on_gone),
            "asked_for": len(self._asked_for),
        }
