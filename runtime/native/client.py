"""The core of every driver and worker: connections, objects, get, put and wait.

    user threads ──▶ Client ── TaskCalls ── ActorCalls        this process's calls
                       │  ObjectTable (who holds what)  Store (shared memory)
                       │  Reactor (who reads)
                       ├── node           leases, actors, names, deaths
                       └── peers          other processes: calls, replies, values, loans

All state is guarded by one lock, held for short stretches and never while waiting or running user code.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from select import EPOLLOUT
from typing import Any

from ..exceptions import GetTimeoutError, NodeDiedError, ObjectLostError, OwnerDiedError
from ..failure import pack_error
from ..refs import ObjectRef, short
from . import messages as m
from .arena import Board
from .calls import remember
from .connection import Connection, accept, address, listen
from .objects import FreeBlocks, Gone, ObjectTable, Record, SendRelease, owner_of
from .reactor import Reactor, Waiter
from .store import Store

Message = m._Message


class Client:
    """One process's view of the runtime.

    Args:
        session: name of the runtime's run, part of all socket names.
        process: the id that the node forked this worker with; None: a driver, which gets one.
        log_to_driver: receive what workers print.
    """

    def __init__(self, session: str, process: bytes | None, *, log_to_driver: bool = False) -> None:
        self.session = session
        self.lock = threading.RLock()
        # A worker must be there to be called before the node knows that it is up; nobody knows a driver by then.
        listener = None if process is None else listen(session, process)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(address(session, None))
        welcome, board_fd = _register(sock, m.Register(process, os.getpid(), log_to_driver))
        self.me = welcome.process
        self.resources = welcome.resources
        self.objects = ObjectTable(self.me)
        self.reactor = Reactor("shoal-reader")
        self.store = Store(self.me, Board(board_fd, welcome.index), welcome.node_pid, self._hand_over)
        os.close(board_fd)
        self.dropped: deque[bytes] = deque()
        self.on_gone: dict[bytes, Callable[[], object]] = {}  # once no reference to the object is left here
        self.broken: str | None = None
        self.before_block: Callable[[], None] = lambda: None
        self.after_block: Callable[[], None] = lambda: None
        self._numbers = 0
        self._peers: dict[bytes, Connection] = {}
        # The node's too; two processes that call each other at the same moment have two.
        self._connections: set[Connection] = set()
        self._reasons: dict[bytes, str] = {}  # why processes died, the latest ones
        self._answers: deque[tuple[Waiter, list[Message]]] = deque()
        self._requests: dict[bytes, list[bytes]] = {}
        self.handlers: dict[type, Callable[[Connection, Any], None]] = {
            m.Hello: self._on_hello,
            m.Request: self._on_request,
            m.Ready: self._on_ready,
            m.Lend: lambda peer, message: self.objects.lent(message.object, message.to),
            m.Release: lambda peer, message: self.objects.released(message.object, _peer(peer), message.count),
            m.Free: lambda peer, message: self.store.free(message.spans),
            m.ProcessDied: self._on_process_died,
        }
        for answer in (m.ArenaHeld, m.NameReserved, m.ActorFound, m.Found, m.Resources):
            self.handlers[answer] = self._on_answer
        self.on_death: list[Callable[[bytes, str], None]] = []
        self._listener = listener or listen(session, self.me)
        self.reactor.before_poll = self._tidy
        self.node = Connection(sock, self.reactor.want_write)

    def start(self) -> None:
        """Begin to read, now that whoever builds on this has added its handlers."""
        self.reactor.watch(self._listener.fileno(), lambda mask: self._accept())
        self._watch(self.node)

    # Connections ------------------------------------------------------------------------------------------------

    def _watch(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.reactor.watch(connection.fileno(), lambda mask: self._read(connection, mask))

    def _read(self, connection: Connection, mask: int) -> None:
        if mask & EPOLLOUT and connection.blocked:
            connection.flush()
        handlers = self.handlers
        with self.lock:
            messages = connection.receive()
            if messages is None:
                self._close(connection)
                return
            for message in messages:
                handlers[type(message)](connection, message)
            if self.objects.commands:
                self.act()

    def _accept(self) -> bool:
        sock = accept(self._listener)
        if sock is not None:
            self._watch(Connection(sock, self.reactor.want_write))
        return sock is not None

    def _on_hello(self, connection: Connection, message: m.Hello) -> None:
        connection.peer = message.process
        # All we send to a process goes over one connection, the first: the counting of references relies on its order.
        self._peers.setdefault(message.process, connection)

    def peer(self, process: bytes) -> Connection | None:
        """Return the connection over which this process sends to another; None if that one is dead."""
        connection = self._peers.get(process)
        if connection is None and process not in self.objects.dead:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(address(self.session, process))
            except OSError:
                sock.close()
                return None
            connection = Connection(sock, self.reactor.want_write)
            connection.peer = process
            self._peers[process] = connection
            self._watch(connection)
            connection.send(m.Hello(self.me))
        return connection

    def _close(self, connection: Connection) -> None:
        self.reactor.unwatch(connection.fileno())
        connection.close()
        self._connections.discard(connection)
        if connection is self.node:
            self._on_node_lost()
        elif connection.peer is not None and self._peers.get(connection.peer) is connection:
            del self._peers[connection.peer]

    def _on_node_lost(self) -> None:
        with self.lock:
            self.broken = "the daemon of this node has died (look for its last message above). Start the runtime again"
            failure = m.Value(pack_error(NodeDiedError(self.broken)), failed=True)
            for object_id, record in list(self.objects.records.items()):
                if record.value is None:
                    self.objects.fulfil(object_id, failure)
            for waiter, _ in self._answers:
                waiter.finish()

    def _hear_out(self, process: bytes) -> None:
        """Handle what a dead process said last: its replies count, and so do its loans of our objects."""
        while self._accept():  # it may even have called us just before
            pass
        for connection in list(self._connections):
            if connection is self.node or connection.peer not in (None, process):
                continue
            while messages := connection.receive():
                for message in messages:
                    self.handlers[type(message)](connection, message)
            if connection.peer == process:
                self._close(connection)

    def _on_process_died(self, node: Connection, message: m.ProcessDied) -> None:
        process = message.process
        self._hear_out(process)
        remember(self._reasons, process, message.reason)
        reason = f"the process that owned it is gone: {message.reason}"
        for object_id in self.objects.process_died(process):
            self.fail(object_id, OwnerDiedError(f"object {short(object_id)} is lost: {reason}"))
        self.store.process_died(process)
        for listener in self.on_death:
            listener(process, message.reason)

    def busy(self) -> bool:
        """Return whether this thread is in the middle of changing state: it must not be interrupted here."""
        return self.lock._is_owned() or self.reactor.busy() or self.store.busy()  # type: ignore[attr-defined]

    # Asking the node --------------------------------------------------------------------------------------------

    def ask_node(self, message: Message, fds: tuple[int, ...] = ()) -> Any:
        """Send a question to the node and wait for its answer; it answers in order.

        Raises:
            NodeDiedError: the node is gone.
        """
        waiter = Waiter()
        box: list[Message] = []
        with self.lock:
            self.check()
            self._answers.append((waiter, box))
            self.node.send(message, fds)
        self.reactor.wait(waiter)
        if not box:
            raise NodeDiedError(self.broken or "the runtime was shut down meanwhile")
        return box[0]

    def _on_answer(self, node: Connection, message: Message) -> None:
        waiter, box = self._answers.popleft()
        box.append(message)
        waiter.finish()

    def _hand_over(self, fd: int) -> int:
        return self.ask_node(m.NewArena(), (fd,)).arena

    def check(self) -> None:
        """Raise NodeDiedError if the node is gone."""
        if self.broken is not None:
            raise NodeDiedError(self.broken)

    # References -------------------------------------------------------------------------------------------------

    def new_ids(self, count: int) -> list[bytes]:
        """Return ids for objects of this process's own."""
        first = self._numbers + 1
        self._numbers += count
        return [self.me + number.to_bytes(8, "big") for number in range(first, first + count)]

    def new_ref(self, object_id: bytes) -> ObjectRef:
        """Return the first reference to a new object."""
        self.objects.create(object_id)
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
        """Carry out what the object table asks for."""
        commands = self.objects.commands
        while commands:
            command = commands.popleft()
            if isinstance(command, FreeBlocks):
                self._free_blocks(command.spans)
                continue
            if isinstance(command, Gone | SendRelease) and command.object in self.on_gone:
                self.on_gone.pop(command.object)()
            if isinstance(command, Gone):
                continue
            peer = self.peer(owner_of(command.object))
            if peer is None:
                continue
            if isinstance(command, SendRelease):
                peer.post(m.Release(command.object, command.count))
                self.reactor.flush_soon(peer)
            else:
                peer.send(m.Lend(command.object, command.to))

    def _free_blocks(self, spans: list[m.Span]) -> None:
        by_maker: dict[bytes, list[m.Span]] = {}
        for span in spans:
            by_maker.setdefault(span.maker, []).append(span)
        for maker, theirs in by_maker.items():
            if maker == self.me:
                self.store.free(theirs)
                continue
            peer = self.peer(maker)
            if peer is not None:
                peer.post(m.Free(theirs))
                self.reactor.flush_soon(peer)
            else:
                self.node.send(m.Free(theirs))

    # Values -----------------------------------------------------------------------------------------------------

    def fulfil(self, object_id: bytes, value: m.Value, by: bytes | None = None) -> None:
        """An object's value is there, sent `by` a process; answer those who asked for it."""
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
            peer.send(m.Ready(object_id, value))

    def _on_request(self, connection: Connection, message: m.Request) -> None:
        asker = _peer(connection)
        record = self.objects.records.get(message.object)
        if record is None:
            error = ObjectLostError(f"object {short(message.object)} was freed: its last reference was gone")
            self._send_value(asker, message.object, m.Value(pack_error(error), failed=True))
        elif record.value is None:
            self._requests.setdefault(message.object, []).append(asker)
        else:
            self._send_value(asker, message.object, record.value)

    def _on_ready(self, connection: Connection, message: m.Ready) -> None:
        self.fulfil(message.object, message.value, connection.peer)

    def record_of(self, ref: ObjectRef, notify: Callable[[], None]) -> Record:
        """Return a reference's record; have `notify` called once its value is there, if it isn't yet."""
        record = self.objects.records[ref.id]
        owner = owner_of(ref.id)
        if record.value is None and owner != self.me and not record.asked:
            record.asked = True
            peer = self.peer(owner)
            if peer is not None:
                peer.send(m.Request(ref.id))
            elif owner in self.objects.dead:
                reason = f"the process that owned it is gone: {self._reasons.get(owner, 'it died long ago')}"
                self.fail(ref.id, OwnerDiedError(f"object {short(ref.id)} is lost: {reason}"))
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
        return ref

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """Return the values; see `shoal.runtime.get`."""
        records = self._await(refs, len(refs), timeout, stop_at_failure=True)
        late = [ref for ref, record in zip(refs, records, strict=True) if record.value is None]
        for record in records:
            if record.value is not None and record.value.failed:
                self.store.load(record.value)
        if late:
            raise GetTimeoutError(
                f"get: {len(late)} of {len(refs)} objects were not ready after {timeout} s, the first is {late[0]!r}"
            )
        return [self.store.load(record.value) for record in records if record.value is not None]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Split into ready and not ready; see `shoal.runtime.wait`."""
        records = self._await(refs, num_returns, timeout, stop_at_failure=False)
        ready: list[ObjectRef] = []
        pending: list[ObjectRef] = []
        for ref, record in zip(refs, records, strict=True):
            (ready if record.value is not None and len(ready) < num_returns else pending).append(ref)
        return ready, pending

    def _await(
        self, refs: Sequence[ObjectRef], count: int, timeout: float | None, stop_at_failure: bool
    ) -> list[Record]:
        """Block until `count` of the values are there, the time is over, or one is a failure if that stops it."""
        waiter = Waiter(count)

        def notify() -> None:
            failed = stop_at_failure and any(record.value is not None and record.value.failed for record in records)
            waiter.finish() if failed else waiter.notify()

        records: list[Record] = []
        single = waiter.notify if len(refs) == 1 or not stop_at_failure else notify
        with self.lock:
            for ref in refs:
                records.append(self.record_of(ref, single))
            there = sum(record.value is not None for record in records)
            if there:
                notify_failed = stop_at_failure and any(r.value is not None and r.value.failed for r in records)
                waiter.finish() if notify_failed else waiter.notify(there)
            if not waiter.ready:
                self.check()
        if not waiter.ready and timeout != 0:
            self._block(waiter, None if timeout is None else time.monotonic() + timeout)
        elif timeout == 0:
            self._block(waiter, time.monotonic() + 0.0005)  # what has arrived already counts
        if not waiter.ready:
            with self.lock:
                for record in records:
                    if record.waiters and single in record.waiters:
                        record.waiters.remove(single)
        return records

    def _block(self, waiter: Waiter, deadline: float | None) -> None:
        if waiter.ready:
            return
        self.before_block()
        try:
            self.reactor.wait(waiter, deadline)
        finally:
            self.after_block()

    def future(self, ref: ObjectRef) -> Future:
        """Return a future of a value; it is set by whichever thread reads."""
        future: Future = Future()
        future.set_running_or_notify_cancel()

        def done() -> None:
            try:
                future.set_result(self.store.load(self.objects.records[ref.id].value))  # type: ignore[arg-type]
            except BaseException as error:  # whatever the task raised belongs to whoever asks the future
                future.set_exception(error)

        with self.lock:
            record = self.record_of(ref, done)
            if record.value is not None and not future.done():
                done()
        return future

    def drain_node(self) -> None:
        """Handle what the node said last; for a driver whose node has ended."""
        self.broken = self.broken or "the runtime was shut down"
        waiter = Waiter()
        with self.lock:
            if not self.node.closed:
                self._answers.append((waiter, []))
            else:
                waiter.finish()
        self.reactor.wait(waiter, time.monotonic() + 1)

    def close(self) -> None:
        """Close all connections of this process."""
        self.reactor.close()
        with self.lock:
            self.broken = self.broken or "the runtime was shut down"
            for connection in self._connections:
                connection.close()
            self._listener.close()
            self.store.close()


def _peer(connection: Connection) -> bytes:
    assert connection.peer is not None, "the first message on a connection is Hello"
    return connection.peer


def _register(sock: socket.socket, message: m.Register) -> tuple[m.Registered, int]:
    """Introduce this process to the node; return its answer and the descriptor of the board."""
    sock.sendall(m.encode(message))
    # Exactly one message is read: what the node sends after it is for the reader.
    header, fds, _, _ = socket.recv_fds(sock, 4, 1)
    answer = m.decode(sock.recv(int.from_bytes(header, "little"), socket.MSG_WAITALL))
    assert isinstance(answer, m.Registered)
    return answer, fds[0]
