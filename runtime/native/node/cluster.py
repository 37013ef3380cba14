"""The nodes of a cluster, and how a message gets from a process of one to a process of another.

    head ─┬─ node        Each node has one line, to the head, and the head one to each.
          └─ node

What processes of different nodes say to each other goes process → node → head → node → process, and so does the news
that a process has died, over connections that all keep their order. So nothing overtakes anything, and who is told of
a death has read all that the dead process said.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ...core.ids import PROCESS_BYTES, node_of
from ...exceptions import NodeDiedError
from ..protocol import messages as m
from ..protocol.connection import Connection, ProtocolError, receive_one
from ..protocol.local_sockets import SocketNames, listen
from ..protocol.loop import Loop
from .known_process import Process

Address = m.ProcessId | m.NodeId
#: So many nodes besides the head may be there at one time; of those that are gone, so many are remembered.
MOST_NODES = 256
# How often a node says that it is there, seconds; and after how many such times in silence the head takes one for dead.
# gRPC misses a process that is stopped earlier, but answers by itself for one that is stuck. By a clock all would have
# been silent for too long where the head itself, or the machine, has been stopped for a while.
_BEAT_SECONDS = 10.0
_MOST_SILENT = 6


class Cluster:
    """The nodes as one of them sees them.

    Args:
        me: this node.
        processes: its processes that live.
        receive: handles what another node, or a process of one, says to this node.
        lost: told of the death of each process of another node.
        changed: called when a node has joined or died.

    Attributes:
        head: the node that keeps actors, names and published values.
        nodes: all that live, this one first.
        dead: those that are gone, the latest ones.
        welcome: for the head: the answer to a node that joins.
        address: where others can join.
        at_head: kinds of messages that only the head can handle.
    """

    def __init__(  # noqa: PLR0917  # the node's parts, put together once
        self,
        me: m.NodeInfo,
        processes: Mapping[m.ProcessId, Process],
        loop: Loop,
        receive: Callable[[Address, m.Message], None],
        lost: Callable[[m.ProcessDied], None],
        changed: Callable[[m.NodeJoined | m.NodeDied], None],
    ) -> None:
        self.me, self.head = me.id, me.id
        self.nodes: dict[m.NodeId, m.NodeInfo] = {me.id: me}
        self.welcome: m.Welcome
        self.address = ""
        self.at_head: set[type] = set()
        self.dead: deque[m.NodeInfo] = deque(maxlen=MOST_NODES)
        self._processes, self._loop = processes, loop
        self._receive, self._lost, self._changed = receive, lost, changed
        self._lines: dict[m.NodeId, Connection] = {}
        self._silent: dict[m.NodeId, int] = {}  # how often it was looked since something last came over each line
        self._elsewhere: dict[m.NodeId, set[m.ProcessId]] = {}  # for the head: the processes of the others
        self._gone: set[m.ProcessId] = set()  # for the others: processes that have died, of nodes that live
        self.handlers: dict[type, Callable[..., None]] = {
            m.NodeJoined: self.by_head(self._joined),
            m.NodeDied: self.by_head(self._died),
            m.Pass: self._on_pass,
            m.Relay: lambda process, message: self._relay(message.process, process, message.payload),
            m.ProcessMade: self._on_process_made,
            m.ProcessDied: self._on_process_died,
            m.AskNodes: self._on_ask_nodes,
            m.StillHere: lambda node, message: None,  # that it was heard is what counts
        }

    # Lines ------------------------------------------------------------------------------------------------------

    def open(self, names: SocketNames) -> str:
        """For the head: let nodes in. Return the name of the local socket on which they are awaited."""
        name = names.of(self.me)
        listener = listen(name)
        self._loop.let_in(listener, self._on_caller)
        self.look_for_silent()
        return name

    def look_for_silent(self) -> None:
        """For the head: hang up on nodes that have said nothing for too long, now and from time to time."""
        for node, line in list(self._lines.items()):
            self._silent[node] += 1
            if self._silent[node] > _MOST_SILENT:
                seconds = _MOST_SILENT * _BEAT_SECONDS
                self._hang_up(line, f"it has said nothing for {seconds:.0f} s: it is stuck, or stopped")
        self._loop.call_later(_BEAT_SECONDS, self.look_for_silent)

    def _beat(self) -> None:
        self.tell_head(m.StillHere())
        self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _on_caller(self, line: Connection) -> None:
        self._loop.watch(line.fileno(), lambda mask: self._read(line))

    def join(self, sock: socket.socket) -> m.Welcome:
        """Join the head, at the other end of this socket."""
        sock.sendall(m.encode(m.Join(self.nodes[self.me])))
        answer = receive_one(sock)
        if answer is None:
            raise NodeDiedError(
                "the head has hung up before it took this node in: it has ended, or has as many nodes as it takes, "
                f"{MOST_NODES}"
            )
        welcome, _ = answer
        assert isinstance(welcome, m.Welcome)
        self.head, self.address = welcome.nodes[0].id, welcome.address
        line = Connection(sock, self._loop.wait_for_room)
        self._add_line(self.head, line)
        self._loop.watch(line.fileno(), lambda mask: self._read(line))
        for node in welcome.nodes:
            self._joined(m.NodeJoined(node))
        self._beat()
        return welcome

    def _add_line(self, node: m.NodeId, line: Connection) -> None:
        line.peer = node
        self._lines[node] = line
        self._silent[node] = 0

    def _read(self, line: Connection) -> None:
        if line.blocked:
            line.flush()
        messages = line.receive()
        if messages is None:
            self._hang_up(line, "its connection has ended")
            return
        if line.peer is not None:
            self._silent[line.peer] = 0
        for message in messages:
            if line.closed:  # for what it has said before
                return
            if line.peer is not None:
                self._receive(line.peer, message)
            elif not isinstance(message, m.Join) or message.node.id in self.nodes or len(self._lines) == MOST_NODES:
                self._hang_up(line, "it has not joined")
            else:
                self._on_join(line, message.node)

    def _on_join(self, line: Connection, node: m.NodeInfo) -> None:
        line.send(msgspec.structs.replace(self.welcome, nodes=list(self.nodes.values())))
        self._add_line(node.id, line)
        self._elsewhere[node.id] = set()
        self._joined(m.NodeJoined(node))

    def _on_ask_nodes(self, process: m.ProcessId, message: m.AskNodes) -> None:
        nodes = m.Nodes(list(self.nodes.values()), list(self.dead), self.head, self.address)
        self.tell_here(process, m.Answer.to(message, nodes))

    def drop(self, node: m.NodeId, why: str) -> None:
        """Hang up on a node that says what makes no sense."""
        if node in self._lines:
            self._hang_up(self._lines[node], f"what it said is not understood: {why}")

    def _hang_up(self, line: Connection, why: str) -> None:
        self._loop.unwatch(line.fileno())
        line.close()
        if line.peer is None:
            return
        del self._lines[line.peer], self._silent[line.peer]
        node = self.nodes[line.peer]
        reason = f"node {node.id.hex()} on {node.host} (pid {node.pid}) has died: {why}"
        for process in self._elsewhere.pop(node.id, ()):
            self._process_lost(node.id, m.ProcessDied(process, reason))
        self._died(m.NodeDied(node.id, reason))

    def by_head(self, handler: Callable[[Any], None]) -> Callable[[m.NodeId, Any], None]:
        """Return the handler of what only the head may say."""

        def handle(node: m.NodeId, message: m.Message) -> None:
            if self.is_head or node != self.head:
                raise ProtocolError(f"only the head says {type(message).__name__}")
            handler(message)

        return handle

    def _joined(self, message: m.NodeJoined) -> None:
        self.nodes[message.node.id] = message.node
        self._news(message)

    def _died(self, message: m.NodeDied) -> None:
        self.dead.append(self.nodes.pop(message.node))
        self._gone = {process for process in self._gone if node_of(process) != message.node}
        self._news(message)

    def _news(self, message: m.NodeJoined | m.NodeDied) -> None:
        concerned = message.node if isinstance(message, m.NodeDied) else message.node.id
        self._spread(message, concerned)
        self._changed(message)

    def _spread(self, message: m.Message, but: m.NodeId) -> None:
        """The head tells all other nodes, except the one that it is about."""
        if self.is_head:
            for node, line in self._lines.items():
                if node != but:
                    line.send(message)

    def spread(self, message: m.Message) -> list[m.NodeId]:
        """If this is the head, send a message to all other nodes; return which they are."""
        self._spread(message, self.me)
        return list(self._lines) if self.is_head else []

    # Processes --------------------------------------------------------------------------------------------------

    def process_made(self, process: m.ProcessId) -> None:
        """This node has a new process."""
        if not self.is_head:
            self.tell_head(m.ProcessMade(process))

    def process_died(self, message: m.ProcessDied) -> None:
        """A process of this node is gone."""
        if self.is_head:
            self.spread(message)
        else:
            self.tell_head(message)

    def _on_process_made(self, node: m.NodeId, message: m.ProcessMade) -> None:
        self._check_own(node, message.process)
        self._elsewhere[node].add(message.process)

    def _on_process_died(self, node: m.NodeId, message: m.ProcessDied) -> None:
        self._check_own(node, message.process)
        if self.is_head:
            self._elsewhere[node].discard(message.process)
        self._process_lost(node, message)

    def _check_own(self, node: m.NodeId, speaks_of: Address) -> None:
        """Raise ProtocolError if a node speaks of, or for, processes that are not its own; the head may, of any."""
        if node not in (self.head, node_of(speaks_of)) or node_of(speaks_of) == self.me:
            raise ProtocolError(f"it speaks of {speaks_of.hex()}, which is not its own")

    def _process_lost(self, node: m.NodeId, message: m.ProcessDied) -> None:
        if not self.is_head:
            self._gone.add(message.process)
        self._spread(message, node)
        self._lost(message)

    def lives(self, process: m.ProcessId) -> bool:
        """Return whether a process of any node lives, as far as is known: the head knows all of them."""
        if node_of(process) == self.me:
            return process in self._processes
        if self.is_head:
            return process in self._elsewhere.get(node_of(process), ())
        return node_of(process) in self.nodes and process not in self._gone

    # Messages ---------------------------------------------------------------------------------------------------

    @property
    def is_head(self) -> bool:
        """Whether this node is the head."""
        return self.head == self.me

    def place_of(self, message: m.Message) -> m.NodeId:
        """Return the node that can do what a process asks for."""
        if type(message) in self.at_head:
            return self.head
        concerned = self.me
        if isinstance(message, m.ReturnLease | m.KillWorker):
            concerned = message.worker
        elif isinstance(message, m.NotUnderstood):
            concerned = message.process
        elif isinstance(message, m.ReadBlock):
            concerned = message.span.maker
        elif isinstance(message, m.Free):
            concerned = message.spans[0].maker
        elif isinstance(message, m.StillNeeded):
            concerned = message.maker
        return node_of(concerned)

    def tell_head(self, message: m.Message) -> None:
        """Send a message to the head."""
        if self.head in self._lines:  # else it is dead, and this node ends
            self._lines[self.head].send(message)

    def tell_node(self, node: m.NodeId, message: m.Message) -> None:
        """Say something to a node that this one has a line to, if it lives: to any as the head, else to the head."""
        if node in self._lines:
            self._lines[node].send(message)

    def tell(self, process: m.ProcessId, message: m.Message) -> None:
        """Send a message to a process of any node, if it lives."""
        if node_of(process) == self.me:
            self.tell_here(process, message)
        else:
            self.send(process, self.me, message)

    def tell_here(self, process: m.ProcessId, message: m.Message) -> bool:
        """Send a message to a process of this node; False if it is dead."""
        found = self._processes.get(process)
        if found is not None and found.connection is not None:
            found.connection.send(message)
        return found is not None  # one that is dying: its death will be told

    def send(self, to: Address, by: Address, message: m.Message) -> None:
        """Pass on what a process, or this node, says to another node or a process of one."""
        self._send(m.Pass(to, by, bytes(m.encode(message)[4:])))

    def _send(self, message: m.Pass) -> None:
        line = self._lines.get(node_of(message.to) if self.is_head else self.head)
        if line is not None:
            line.send(message)
        else:
            self._undeliverable(message)

    def _on_pass(self, node: m.NodeId, message: m.Pass) -> None:
        self._check_own(node, message.by)
        if self.is_head and len(message.by) == PROCESS_BYTES and not self.lives(message.by):
            return  # its end would never come, or has come, so nothing would undo what is done for it now
        if node_of(message.to) != self.me:
            self._send(message)
        elif message.to == self.me:
            self._receive(message.by, m.decode(message.payload))
        elif len(message.by) != PROCESS_BYTES:
            self.tell_here(message.to, m.decode(message.payload))
        else:
            self._relay(message.to, message.by, message.payload)

    def _relay(self, to: m.ProcessId, by: m.ProcessId, payload: bytes) -> None:
        if node_of(to) != self.me:
            self._send(m.Pass(to, by, payload))
        elif not self.tell_here(to, m.Relay(by, payload)):
            self._undeliverable(m.Pass(to, by, payload))

    def _undeliverable(self, message: m.Pass) -> None:
        """Answer the process that sent a message, if it waits for an answer."""
        if len(message.by) != PROCESS_BYTES:
            return
        if len(message.to) == PROCESS_BYTES:
            answer: m.Message = m.ProcessDied(message.to, "it died long ago")
        else:
            asked = m.decode(message.payload)
            if not isinstance(asked, m.ReadBlock):
                return
            answer = m.BlockRead(asked.span, asked.start, b"", f"node {message.to.hex()}, where it lies, is gone")
        self.tell(message.by, answer)

    # The end ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The node ends: as the head, end the others."""
        self._changed = lambda message: None
        self.spread(m.Shutdown())

    def hang_up(self) -> None:
        """Shut down the sending side; the other end closes the line when it has read all."""
        for line in self._lines.values():
            line.sock.settimeout(1)
            line.flush()
            with contextlib.suppress(OSError):
                line.sock.shutdown(socket.SHUT_WR)

    def ending(self) -> bool:
        """Return whether a line is open."""
        return bool(self._lines)
