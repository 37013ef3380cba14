"""Whom a driver or worker is connected with: the node and others; which are dead, and what the node was asked."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ...core.ids import node_of
from ...core.reports.events import EVENTS_KEPT, Event
from ...exceptions import NodeDiedError, ShoalError
from ..protocol import messages as m
from ..protocol.connection import Connection, ProtocolError, RelayedConnection, decode_or_say, receive_one, remember
from ..protocol.local_sockets import SocketNames, accept, connect, listen
from .reactor import Handler, Reactor, Waiter

T = TypeVar("T")
# Of a process that starts, seconds: hundreds may start at the same moment.
_NODE_PATIENCE = 60.0
_SHUT_DOWN = (
    "the runtime was shut down while this waited or called: what was not ready by then is lost. Let the threads that "
    "use it finish before shutdown()"
)
_NODE_DIED = "the daemon of this node has died. Start the runtime again"
# What only the node says: from another process it makes no sense.
_OF_THE_NODE = frozenset({
    *(m.Answer, m.ProcessDied, m.NodeJoined, m.NodeDied, m.Relay, m.Exit, m.Output, m.ReportState, m.BlockRead),
    *(m.Leased, m.Recall, m.EnvironmentFailed, m.StartActor, m.ActorState, m.GroupState, m.AskWait, m.Deadlocked),
    *(m.MemoryGranted, m.MemoryRefused, m.Trim, m.Spill, m.AskNeeded),
})  # fmt: skip


class Links:
    """All connections of one process.

    Args:
        names: those of the session's sockets.
        process: the id that the node forked this worker with; None: a driver, which gets one.
        log_to_driver: receive what workers print.
        namespace: for a driver: where its actors' names belong.
        why_node_died: says how the node has died, for a driver that has started it.

    Attributes:
        me: this process's id.
        job: what this process works for.
        welcome: what the node said when this process registered.
        board_fd: descriptor of the board of holders, for the caller to use and close.
        lock: the reactor's.
        dead: processes that are known to be dead.
        starved: processes that died for want of memory, the latest ones.
        events, note: what has happened, see `events.Event`; adds to it.
        peers: the connection over which this process sends to each other one.
        nodes: those that live, by id.
        asked: by number: the questions that the node has not answered, what waits for that, and the answer's place.
        broken: why nothing works any more, if so.
        is_shut_down: whether that is since this program has shut the node down.
        on_death: each called with the id of a process that has died, and the reason.
        on_node_death: each called with the id of a node that has died, after its processes, and the reason.
        on_node_lost: each called under the lock when this process's own node is gone.
    """

    def __init__(
        self,
        names: SocketNames,
        process: bytes | None,
        *,
        log_to_driver: bool = False,
        namespace: str = "",
        why_node_died: Callable[[], str] = lambda: _NODE_DIED,
    ) -> None:
        self.names = names
        # A worker must be there to be called before the node knows that it is up; no process knows a driver by then.
        listener = None if process is None else listen(names.of(process))
        sock = connect(names.node, _NODE_PATIENCE)
        self.welcome, self.board_fd = _register(sock, m.Register(process, log_to_driver, namespace))
        self.me, self.job = self.welcome.process, self.welcome.job
        self.dead: set[bytes] = set()
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.note = self.events.append
        self.broken: str | None = None
        self.is_shut_down = False
        self._why_node_died = why_node_died
        self.nodes = {node.id: node for node in self.welcome.nodes}
        self.on_death: list[Callable[[bytes, str], object]] = []
        self.on_node_death: list[Callable[[bytes, str], object]] = []
        self.on_node_lost: list[Callable[[], object]] = []
        self._handlers: dict[type, Handler] = {}
        self._of_peers: dict[type, Handler] = {}
        self.peers: dict[bytes, Connection] = {}
        # The node's too; two processes that call each other at the same moment have two.
        self._connections: set[Connection] = set()
        self.starved: dict[bytes, bool] = {}
        self._reasons: dict[bytes, str] = {}  # why processes died, the latest ones
        self.asked: dict[int, tuple[m.Question, Waiter, list[Any]]] = {}
        self._questions = 0
        self._at_the_end: list[Waiter] = []
        self._listener = listener or listen(names.of(self.me))
        self.reactor = Reactor("shoal-reader", self.events, self._hang_up)
        self.lock = self.reactor.lock
        self.node = Connection(sock, self.reactor.wait_for_room)

    def start(self, handlers: dict[type, Handler]) -> None:
        """Begin to read; `handlers` says what to do with each kind of message."""
        self._handlers |= handlers
        self._of_peers |= {kind: handler for kind, handler in handlers.items() if kind not in _OF_THE_NODE}
        self.reactor.let_in(self._listener, self._watch)
        self._watch(self.node)

    # Connections ------------------------------------------------------------------------------------------------

    def _watch(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.reactor.follow(connection, self._handlers if connection is self.node else self._of_peers)

    def on_hello(self, connection: Connection, message: m.Hello) -> None:
        if connection.peer not in (None, message.process):
            raise ProtocolError(f"it was {connection.peer!r} and says that it is {message.process!r}")
        connection.peer = message.process
        # All we send to a process goes over one connection, the first: the counting of references relies on its order.
        self.peers.setdefault(message.process, connection)

    def peer(self, process: bytes) -> Connection | None:
        """Return the connection over which this process sends to another; None if that one is dead."""
        connection = self.peers.get(process)
        if connection is None and process not in self.dead:
            if node_of(process) != node_of(self.me):
                connection = self.peers[process] = RelayedConnection(process, self.node)
                return connection
            try:
                sock = connect(self.names.of(process))
            except OSError:
                # It is dead, and another user may have taken its name. If it was before this process began, this
                # one would not be told: the node answers what we send.
                connection = self.peers[process] = RelayedConnection(process, self.node)
                return connection
            connection = Connection(sock, self.reactor.wait_for_room)
            connection.peer = process
            self.peers[process] = connection
            self._watch(connection)
            connection.send(m.Hello(self.me))
        return connection

    def on_relay(self, node: Connection, message: m.Relay) -> None:
        connection = self.peer(message.process) or RelayedConnection(message.process, self.node)
        self.reactor.handle(connection, self._of_peers, [decode_or_say(message.payload)])

    def _hang_up(self, connection: Connection, nonsense: str | None = None) -> None:
        """Close a connection that has ended, or that says `nonsense`: what is awaited from there would never come."""
        if not isinstance(connection, RelayedConnection):  # which shares its socket with that to the node
            self.reactor.unwatch(connection.fileno())
        connection.close()
        self._connections.discard(connection)
        if connection is self.node:
            wrong = f"this process does not understand what the node says, and hung up: {nonsense}"
            self._on_node_lost(wrong if nonsense else None)
        elif connection.peer is not None:
            if self.peers.get(connection.peer) is connection:
                del self.peers[connection.peer]
            if nonsense:
                self.node.send(m.NotUnderstood(connection.peer, nonsense))

    def _on_node_lost(self, why: str | None) -> None:
        with self.lock:
            self.broken = _SHUT_DOWN if self.is_shut_down else why or self._why_node_died()
            for action in self.on_node_lost:
                action()
            for waiter in [*(waiter for _, waiter, _ in self.asked.values()), *self._at_the_end]:
                waiter.finish()

    def _read_last(self, process: bytes) -> None:
        """Handle what a dead process has sent last: its replies count, and so do its loans of our objects."""
        with contextlib.suppress(OSError):  # no descriptor is left
            while (sock := accept(self._listener)) is not None:  # it may even have called us just before
                self._watch(self.reactor.newcomer(sock))
        for connection in list(self._connections):
            if connection is self.node or connection.peer not in (None, process):
                continue
            while not connection.closed and (messages := connection.receive()):
                self.reactor.handle(connection, self._of_peers, messages)
            if connection.peer == process and not connection.closed:
                self._hang_up(connection)

    def on_process_died(self, node: Connection, message: m.ProcessDied) -> None:
        if message.process in self.dead:
            return
        if node_of(message.process) == node_of(self.me):
            self._read_last(message.process)
        self.peers.pop(message.process, None)
        self.dead.add(message.process)
        remember(self._reasons, message.process, message.reason)
        if message.out_of_memory:
            remember(self.starved, message.process, True)
        for listener in self.on_death:
            listener(message.process, message.reason)

    def on_node_joined(self, node: Connection, message: m.NodeJoined) -> None:
        self.nodes[message.node.id] = message.node

    def on_node_died(self, node: Connection, message: m.NodeDied) -> None:
        del self.nodes[message.node]
        for listener in self.on_node_death:
            listener(message.node, message.reason)

    def death_of(self, process: bytes) -> str | None:
        """Return why a process died; None if it is not known to be dead."""
        return self._reasons.get(process, "it died long ago") if process in self.dead else None

    # Asking the node --------------------------------------------------------------------------------------------

    def ask_node(self, question: m.Question[T], fds: tuple[int, ...] = ()) -> T:
        """Send a question to the node and wait for its answer.

        Raises:
            ShoalError: the node is gone; see `check`.
        """
        waiter = Waiter()
        box: list[T] = []
        with self.lock:
            self.check()
            self._questions += 1
            question.number = self._questions
            self.asked[question.number] = question, waiter, box
            self.node.send(question, fds)
        self.reactor.wait(waiter)
        if not box:
            raise self.gone()
        return box[0]

    def on_answer(self, node: Connection, message: m.Answer) -> None:
        question, waiter, box = self.asked.pop(message.number)
        box.append(msgspec.msgpack.decode(message.value, type=question.type_of_answer()))
        waiter.finish()

    def check(self) -> None:
        """Raise NodeDiedError if the node has died, ShoalError if it was shut down."""
        if self.broken is not None:
            raise self.gone()

    def gone(self) -> ShoalError:
        """Return the error to raise where the node is needed, which is gone."""
        return ShoalError(_SHUT_DOWN) if self.is_shut_down or self.broken is None else NodeDiedError(self.broken)

    def shut_down(self) -> None:
        """End the node, and with it all that waits for something."""
        with self.lock:
            if self.broken is None:
                self.is_shut_down = True
                self.node.send(m.Shutdown())

    def drain_node(self) -> None:
        """Handle what the node said last; for a driver whose node has ended."""
        self.broken = self.broken or _SHUT_DOWN
        waiter = Waiter()
        with self.lock:
            if not self.node.closed:
                self._at_the_end.append(waiter)
            else:
                waiter.finish()
        self.reactor.wait(waiter, time.monotonic() + 1)

    def flush(self) -> None:
        """Write out what has been said to other processes."""
        for peer in list(self.peers.values()):
            peer.flush()

    def close(self) -> None:
        """Close all connections of this process."""
        self.reactor.close()
        with self.lock:
            self.broken = self.broken or _SHUT_DOWN
            for connection in self._connections:
                connection.close()
            self._listener.close()


def _register(sock: socket.socket, message: m.Register) -> tuple[m.Registered, int]:
    """Introduce this process to the node; return its answer and the descriptor of the board."""
    sock.sendall(m.encode(message))
    answer = receive_one(sock)
    assert answer is not None
    welcome, fds = answer
    assert isinstance(welcome, m.Registered)
    return welcome, fds[0]
