"""The core of every driver and worker: objects, get, put and wait.

user threads ──▶ Client ── TaskCalls ── ActorCalls        this process's calls
                   │  ObjectTable (who holds what)  Store (shared memory)
                   │  Reactor (who reads)
                   ├── node           leases, actors, names, deaths
                   └── peers          other processes: calls, replies, values, loans
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...exceptions import GetTimeoutError, ObjectLostError, OwnerDiedError
from ...failure import pack_error
from ...introspection.story_events import FREED, PUT, RECORD_CALL_SITES, call_site
from ...refs import ObjectRef, short
from ...unread import UnreadFailures
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..protocol.local_sockets import SocketNames
from ..store.board import Board
from ..store.fetching import Fetching
from ..store.memory import Memory
from ..store.store import Store
from ..store.views import StaleBlockError
from .calls import Pending
from .completion import Arrivals, Futures
from .lending import Lending
from .links import Links
from .objects import FreeBlocks, Gone, ObjectTable, Record, SendLend, SendRelease, owner_of, size_of
from .reactor import Waiter
from .recovery import Recovery

if TYPE_CHECKING:
    from .blocked_waits import BlockedWaits


class Client(Links):
    """One process's objects, over its links; arguments as for `Links`.

    Attributes:
        kept: references that live as long as this process.
        recovery: what is done about lost objects.
        calls: this process's calls that have not ended, by task.
        on_gone: what to do once no reference to an object is left in this process.
        lending: how this process waits.
        waits: threads that wait: name, since when (monotonic seconds), objects, how many of them are wanted.
        on_wait: what to call when a thread begins to wait.
        blocked_waits: for a worker: hears of waits without a timeout.
        executing: tasks and calls that run here now: name, since when.
        untaken: those of them that yield values and wait until these are taken: how many there are.
        sites: where objects of this process were made, if that is recorded.
        on_node_lost: what to call when the node is gone.
    """

    def __init__(
        self, names: SocketNames, process: bytes | None, *, log_to_driver: bool = False, namespace: str = ""
    ) -> None:
        super().__init__(names, process, log_to_driver=log_to_driver, namespace=namespace)
        self.objects = ObjectTable(self.me, self.dead, UnreadFailures())
        board = Board(self.board_fd, self.welcome.index)
        os.close(self.board_fd)
        self.spill_directory = self.welcome.spill_directory
        self.fetching = Fetching(self)
        self.dropped: deque[bytes] = deque()
        self.calls: dict[bytes, Pending] = {}
        self.arrivals, self.futures = Arrivals(self), Futures(self)
        self.on_gone: dict[bytes, Callable[[], object]] = {}
        self.kept: set[ObjectRef] = set()
        self.lending = Lending(self.reactor, self.lock, self.objects)
        self.waits: dict[Waiter, tuple[str, float, list[bytes], int]] = {}
        self.on_wait: Callable[[], None] | None = None
        self.blocked_waits: BlockedWaits | None = None
        self.executing: dict[bytes, tuple[str, float]] = {}
        self.untaken: dict[bytes, int] = {}
        self.sites: dict[bytes, str] | None = {} if os.environ.get(RECORD_CALL_SITES) == "1" else None
        self.on_node_lost: list[Callable[[], None]] = []
        self.memory = Memory(self)
        self.store = Store(self.me, board, self.welcome, self.memory)
        self.store.fetch = self.fetching.view
        self._numbers = 0
        self._requests: dict[bytes, list[bytes]] = {}
        self.recovery = Recovery(self, self.welcome.max_lineage_bytes)
        self.handlers |= {
            m.Request: self._on_request,
            m.Lost: self._on_lost,
            m.Ready: lambda peer, message: self.fulfil(message.object, message.value, _peer(peer)),
            m.NotYet: lambda peer, message: self.lending.absent(message.object),
            m.Lend: lambda peer, message: self.objects.lent(message.object, message.to),
            m.Release: lambda peer, message: self.objects.released(message.object, _peer(peer), message.count),
        }
        self.on_death.append(self._lose)
        self.reactor.before_poll = self._tidy

    def _lose(self, process: bytes, reason: str) -> None:
        """Fail what a dead process owned, and forget what it held."""
        for object_id in self.objects.process_died(process):
            self.fail_orphan(object_id, reason)
        self.store.process_died(process)

    def fail_orphan(self, object_id: bytes, reason: str) -> None:
        """An object's owner has died, for this reason."""
        self.fail(
            object_id,
            OwnerDiedError(f"object {short(object_id)} is lost: the process that owned it is gone: {reason}"),
        )

    def node_lost(self) -> None:
        """Fail all objects that have no value yet."""
        failure = m.Value(pack_error(self.gone()), failed=True)
        for object_id, record in list(self.objects.records.items()):
            if record.value is None:
                self.objects.fulfil(object_id, failure)
        for action in self.on_node_lost:
            action()

    def busy(self) -> bool:
        """Return whether this thread is in the middle of changing state: it must not be interrupted here."""
        return self.lock._is_owned() or self.reactor.busy() or self.store.busy()  # type: ignore[attr-defined]

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

    def adopt(self, object_id: bytes, given: int = 0, by: bytes | None = None) -> ObjectRef:
        """Return one more reference; `given`: it was lent to us with a message, sent `by` a process."""
        with self.lock:
            if self.objects.hold(object_id, given, by) is None:
                self.objects.create(object_id)
                self.fail(
                    object_id, ObjectLostError(f"object {short(object_id)} was freed: its last reference was gone")
                )
        return ObjectRef(object_id, self._drop)

    def borrow(self, object_id: bytes) -> ObjectRef:
        """Return a reference to an object that was not lent to this process, by lending it to itself."""
        with self.lock:
            owner = owner_of(object_id)
            peer = None if owner == self.me else self.peer(owner)
            if peer is not None:
                peer.send(m.Lend(object_id, self.me))
            return self.adopt(object_id, given=0 if owner == self.me else 1)

    def adopt_all(self, value: m.Value, by: bytes | None) -> list[ObjectRef] | None:
        """Return references for those that came inside a value, sent `by` a process."""
        return [self.adopt(object_id, given=1, by=by) for object_id in value.refs] if value.refs else None

    def lend_all(self, value: m.Value, to: bytes) -> None:
        """Announce that a value with its references is about to be sent to a process; then send the announcements."""
        for object_id in value.refs:
            self.objects.lend(object_id, to)
        if self.objects.commands:
            self.act()

    def _drop(self, object_id: bytes) -> None:
        self.dropped.append(object_id)
        self.reactor.nudge()

    def _tidy(self) -> None:
        self.store.drain()
        if self.dropped:
            with self.lock:
                self.settle_drops()

    def settle_drops(self) -> None:
        """Count references that have ended since the last time."""
        dropped, drop = self.dropped, self.objects.drop
        while dropped:
            drop(dropped.popleft())
        if self.objects.commands:
            self.act()

    def act(self) -> None:
        """Carry out what the object table asks for, and the lineage of its objects."""
        commands, lineage = self.objects.commands, self.recovery.lineage
        while commands or (lineage.commands and self.recovery.act()):
            if not commands:
                continue
            command = commands.popleft()
            if isinstance(command, FreeBlocks):
                self.memory.free(command.spans)
                continue
            if not isinstance(command, SendLend) and command.object in self.on_gone:
                self.on_gone.pop(command.object)()
            if isinstance(command, Gone):
                if lineage.makers or lineage.reasons:
                    lineage.dropped(command.object)
                self.note((time.monotonic(), FREED, command.object, None))
                if self.sites is not None:
                    self.sites.pop(command.object, None)
                continue
            peer = self.peer(owner_of(command.object))
            if peer is None:
                continue
            if isinstance(command, SendRelease):
                peer.post(m.Release(command.object, command.count))
                self.reactor.flush_soon(peer)
            else:
                peer.send(m.Lend(command.object, command.to))

    # Values -----------------------------------------------------------------------------------------------------

    def fulfil(self, object_id: bytes, value: m.Value, by: bytes | None = None) -> None:
        """Store an object's value, sent `by` a process, and answer the processes that asked for it."""
        self.objects.fulfil(object_id, value, self.adopt_all(value, by))
        for asker in self._requests.pop(object_id, ()):
            self._send_value(asker, object_id, value)

    def fail(self, object_id: bytes, error: BaseException) -> None:
        """An object will never have a value; whoever gets it is raised this error."""
        self.fulfil(object_id, m.Value(pack_error(error), failed=True))

    def _send_value(self, to: bytes, object_id: bytes, value: m.Value) -> None:
        peer = self.peer(to)
        if peer is not None:
            self.lend_all(value, to)
            self.objects.was_sent(object_id)
            peer.send(m.Ready(object_id, value))

    def _on_lost(self, connection: Connection, message: m.Lost) -> None:
        self.recovery.lost([message.object], message.span)
        self._on_request(connection, message)

    def _on_request(self, connection: Connection, message: m.Request | m.Lost) -> None:
        asker = _peer(connection)
        record = self.objects.records.get(message.object)
        if record is None:
            error = ObjectLostError(f"object {short(message.object)} was freed: its last reference was gone")
            self._send_value(asker, message.object, m.Value(pack_error(error), failed=True))
        elif record.value is None:
            self._requests.setdefault(message.object, []).append(asker)
            connection.send(m.NotYet(message.object))
        else:
            self._send_value(asker, message.object, record.value)

    def record_of(self, ref: ObjectRef, notify: Callable[[], None]) -> Record:
        """Return a reference's record; have `notify` called once its value is there, if it isn't yet."""
        record = self.objects.records[ref.id]
        owner = owner_of(ref.id)
        if record.value is None and owner != self.me and not record.asked:
            record.asked = True
            peer = self.peer(owner)
            if peer is not None:
                peer.send(m.Request(ref.id))
            elif (reason := self.death_of(owner)) is not None:
                self.fail_orphan(ref.id, reason)
        if record.value is None:
            if record.waiters is None:
                record.waiters = []
            record.waiters.append(notify)
        return record

    def put(self, value: Any) -> ObjectRef:
        """Store a value that this process owns."""
        if self.dropped:
            with self.lock:
                self.settle_drops()  # first, so that the new value may take the place of one that is not needed
        packed, inner = self.store.pack(value, self.me)
        with self.lock:
            self.settle_drops()
            ref = self.new_ref(self.new_ids(1)[0])
            self.objects.fulfil(ref.id, packed, inner)
            self.note((time.monotonic(), PUT, ref.id, size_of(packed)))
        return ref

    def get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool = False) -> list[Any]:
        """Return the values; see `shoal.runtime.get`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                values = self._get(refs, timeout, copy)
                if len(values) == len(refs):  # else another thread has just found one to be lost
                    return values
            except StaleBlockError as loss:
                with self.lock:
                    self.recovery.lost([ref.id for ref in refs], loss.span)
            if deadline is not None:
                timeout = max(0.0, deadline - time.monotonic())

    def _get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool) -> list[Any]:
        records = self._await(refs, len(refs), timeout, stop_at_failure=True)
        late = []
        for ref, record in zip(refs, records, strict=True):
            if record.value is None:
                late.append(ref)
            elif record.value.failed:
                self.store.load(self.objects.read_failure(record))
        if late:
            raise GetTimeoutError(
                f"get: {len(late)} of {len(refs)} objects were not ready after {timeout} s, the first is {late[0]!r}"
            )
        self.objects.use(ref.id for ref in refs)
        self.fetching.fetch_values(records)
        return [self.store.load(record.value, copy) for record in records if record.value is not None]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Split into ready and not ready; see `shoal.runtime.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            records = self._await(refs, num_returns, timeout, stop_at_failure=False)
            ready: list[ObjectRef] = []
            pending: list[ObjectRef] = []
            for ref, record in zip(refs, records, strict=True):
                (ready if record.value is not None and len(ready) < num_returns else pending).append(ref)
            # Another thread may have found a value to be lost just after it came.
            if len(ready) == num_returns or (deadline is not None and time.monotonic() >= deadline):
                return ready, pending
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())

    def _await(
        self, refs: Sequence[ObjectRef], count: int, timeout: float | None, stop_at_failure: bool
    ) -> list[Record]:
        """Block until `count` of the values are there, the time is over, or one is a failure if that stops it."""
        waiter = Waiter(count)

        def arrived(record: Record) -> None:
            failed = stop_at_failure and record.value is not None and record.value.failed
            waiter.finish() if failed else waiter.notify()

        callbacks: list[tuple[Record, Callable[[], None]]] = []
        with self.lock:
            records = self.objects.records_of([ref.id for ref in refs])
            for ref, record in zip(refs, records, strict=True):
                if record.value is None:
                    callback: Callable[[], None] = partial(arrived, record)
                    if self.record_of(ref, callback).value is None:
                        callbacks.append((record, callback))
                        continue
                arrived(record)
            if not waiter.ready:
                self.check()
        if not waiter.ready and timeout != 0:
            doubtful = [record for record, _ in callbacks if record.asked and not record.absent]
            self._block_known(waiter, timeout, refs, count, doubtful)
        elif timeout == 0:
            self.reactor.wait(waiter, time.monotonic() + 0.0005)  # what has arrived already counts; nobody waits
        if not waiter.ready:
            with self.lock:
                for record, callback in callbacks:
                    if record.waiters and callback in record.waiters:
                        record.waiters.remove(callback)
        return records

    def _block_known(
        self, waiter: Waiter, timeout: float | None, refs: Sequence[ObjectRef], count: int, doubtful: list[Record]
    ) -> None:
        """Block, and let others see that."""
        now = time.monotonic()
        if self.on_wait is not None:
            self.on_wait()
        ids = [ref.id for ref in refs]
        self.waits[waiter] = (threading.current_thread().name, now, ids, count)
        blocked = self.blocked_waits if timeout is None else None
        if blocked is not None and not blocked.begin(waiter, ids, count):
            blocked = None
        try:
            self.block(waiter, None if timeout is None else now + timeout, doubtful)
        finally:
            del self.waits[waiter]
            if blocked is not None:
                blocked.end()

    def block(self, waiter: Waiter, deadline: float | None, doubtful: list[Record] | None = None) -> None:
        """Wait until the waiter is ready; inside a task its CPU is free. Arguments as for `Lending.wait`."""
        if waiter.ready:
            return
        self.lending.wait(waiter, deadline, [] if doubtful is None else doubtful)
        if self._is_shut_down and self.broken is not None:
            raise self.gone()

    def close(self) -> None:
        """Close all connections, and let go of shared memory."""
        super().close()
        self.futures.close()
        self.store.close()


def _peer(connection: Connection) -> bytes:
    assert connection.peer is not None, "the first message on a connection is Hello"
    return connection.peer
