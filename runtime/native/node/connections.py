"""The node's connections with its processes and with observers: accepted, read, and closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..protocol import messages as m
from ..protocol.connection import Connection, ProtocolError
from ..protocol.local_sockets import listen
from ..protocol.loop import Loop
from .known_process import Process

_OF_NODES_ALONE = frozenset({
    *(m.NodeJoined, m.NodeDied, m.Pass, m.ProcessMade, m.ProcessDied, m.EndProcess, m.Output, m.AskState, m.State),
    *(m.NodeLoad, m.Place, m.Placed, m.ForgetActor, m.StillHere),
})  # fmt: skip
#: What only nodes say, and what a node says for its processes: from a process itself it is nonsense.
OF_NODES = _OF_NODES_ALONE | {m.ActorGranted, m.ActorUp, m.GroupReserved}
#: What a node says in its own name: from one, all else is nonsense, and would be done for nobody.
BY_NODES = _OF_NODES_ALONE | {m.NotUnderstood, m.Preload, m.Shutdown}
#: What a process says to its own node only.
OF_OWN = frozenset({
    *(m.WantLeases, m.Blocked, m.Unblocked, m.Label, m.StateReport),
    *(m.NewArena, m.WantMemory, m.MemoryReturned, m.Trimmed, m.Spilled),
})  # fmt: skip


class Connections:
    """Reads what is said on this node's own socket.

    Args:
        name: of the socket to listen on.
        processes: those of this node that live, by id.
        register: a process calls for the first time; raises ProtocolError if it is none of ours.
        receive: a process says something.
        observe: somebody who has not registered asks how everything is.
        hung_up: a process's connection has ended.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        processes: Mapping[m.ProcessId, Process],
        *,
        register: Callable[[Connection, m.Register], None],
        receive: Callable[[m.ProcessId, m.Message], None],
        observe: Callable[[Connection, m.AskState], None],
        hung_up: Callable[[Process], None],
    ) -> None:
        self._loop, self._processes = loop, processes
        self._register, self._receive, self._observe, self._hung_up = register, receive, observe, hung_up
        self._listener = listen(name)
        loop.let_in(self._listener, self._on_caller)

    def _on_caller(self, connection: Connection) -> None:
        self._loop.watch(connection.fileno(), lambda mask: self._read(connection))

    def _read(self, connection: Connection) -> None:
        if connection.blocked:
            connection.flush()
            self._resume_output(connection)
        messages = connection.receive_with_fds()
        if messages is None:
            self.hang_up(connection)
            return
        for message in messages:
            if connection.closed:  # for what it has said before
                return
            process = self._processes.get(connection.peer or b"")
            if process is not None:
                self._receive(process.id, message)
            else:
                self._take_from_stranger(connection, message)

    def _take_from_stranger(self, connection: Connection, message: m.Message) -> None:
        try:
            if isinstance(message, m.Register):
                self._register(connection, message)
            elif isinstance(message, m.AskState):
                self._observe(connection, message)
            else:
                raise ProtocolError(f"nobody has registered here: {message!r:.200}")
        except Exception:  # whatever it is that makes no sense: nobody waits for a stranger
            self.hang_up(connection)

    def _resume_output(self, connection: Connection) -> None:
        process = self._processes.get(connection.peer or b"")
        if process is not None and process.output_reader is not None:
            process.output_reader.resume()

    def read_out(self, process: Process) -> None:
        """A process has died: what it said last counts."""
        connection = process.connection
        while connection is not None and not connection.closed and (messages := connection.receive_with_fds()):
            for message in messages:
                self._receive(process.id, message)
        if connection is not None and not connection.closed:
            self._loop.unwatch(connection.fileno())
            connection.close()

    def hang_up(self, connection: Connection) -> None:
        """End a connection, which the other side may have done already."""
        self._loop.unwatch(connection.fileno())
        connection.close()
        process = self._processes.get(connection.peer or b"")
        if process is not None and process.connection is connection:
            process.connection = None
            self._hung_up(process)
