"""The node's processes: how workers are made, heard and found to be dead."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from . import messages as m
from .board import MOST_PROCESSES, Board, new_board
from .connection import Connection
from .loop import Loop
from .pool import Pipe, Process, describe_death

# A worker that can't even start is our problem or the machine's: give up instead of forking for ever.
_MOST_FAILED_STARTS = 5
_LINES_FOR_DRIVERS = 8


class Workers:
    """All drivers and workers of the node, and its line to the fork server.

    Args:
        loop: the node's loop.
        fork_server, pid: the fork server's connection and process.
        on_exit: told of every worker that has ended, with the reason, while its connection can still be read.
        stop: ends the node; called if no worker can be made any more.

    Attributes:
        processes: those that live, by id.
        prefix: the node's part of its processes' ids.
        board_fd: descriptor of the board of holders.
    """

    def __init__(
        self,
        loop: Loop,
        fork_server: Connection,
        pid: int,
        on_exit: Callable[[Process, str], None],
        stop: Callable[[], None],
    ) -> None:
        self.processes: dict[bytes, Process] = {}
        self.board_fd = new_board()
        self._board = Board(self.board_fd, 0)
        self._loop, self._fork_server, self._fork_server_pid = loop, fork_server, pid
        self._on_exit, self._stop = on_exit, stop
        self._by_pid: dict[int, Process] = {}
        self._free_lines = list(range(MOST_PROCESSES - 1, -1, -1))
        self.prefix = os.urandom(4)
        self._numbers = 0
        self._failed_starts = 0
        fork_server.on_blocked = loop.wait_for_room
        loop.watch(fork_server.fileno(), self._read_fork_server)

    @property
    def room(self) -> int:
        """How many workers more there may be: each needs a line of the board, and drivers must find one, too."""
        return max(0, len(self._free_lines) - _LINES_FOR_DRIVERS)

    def new(self, title: str) -> Process:
        """Return the record of a new process."""
        self._numbers += 1
        process = Process(self.prefix + self._numbers.to_bytes(4, "big"), self._free_lines.pop(), title)
        self.processes[process.id] = process
        self._board.open_line(process.index)
        return process

    def came_up(self, process: Process, pid: int) -> None:
        """A worker has registered."""
        process.pid, process.registered = pid, True
        self._failed_starts = 0

    def forget(self, process: Process) -> None:
        """A process is gone."""
        del self.processes[process.id]
        self._board.clear_line(process.index)
        self._free_lines.append(process.index)

    def preload(self, message: m.Preload) -> None:
        """Have the fork server import modules."""
        self._fork_server.send(message)

    def fork(self, title: str, environment: m.Environment | None = None) -> Process:
        """Have the fork server make a worker; it registers when it is up."""
        process = self.new(title)
        process.environment = environment
        ends = []
        for error in (False, True):
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read, False)
            pipe = Pipe(read, error)
            process.pipes.append(pipe)
            self._loop.watch(read, lambda pipe=pipe: self._read_pipe(process, pipe))  # type: ignore[misc]
            ends.append(write)
        self._fork_server.send(m.Fork(process.id, title, environment), tuple(ends))
        return process

    def _read_fork_server(self) -> None:
        if self._fork_server.blocked:
            self._fork_server.flush()
        messages = self._fork_server.receive()
        if messages is None:
            print("shoal: the fork server has died; without it no worker can be made", file=sys.stderr)
            self._stop()
            return
        for message in messages:
            if isinstance(message, m.Forked):
                process = self.processes[message.process]
                process.pid = message.pid
                self._by_pid[message.pid] = process
                if process.ended:
                    process.signal(signal.SIGKILL)
            elif isinstance(message, m.Exited):
                self._exited(self._by_pid.pop(message.pid), message.status)

    def _read_pipe(self, process: Process, pipe: Pipe) -> None:
        text = process.read_output(pipe)
        if text is None:
            self._loop.unwatch(pipe.fd)
            os.close(pipe.fd)
            process.pipes.remove(pipe)
        elif text:
            output = m.Output(f"{process.title} pid={process.pid}", text, pipe.error)
            for driver in self.processes.values():
                if driver.log_to_driver and driver.connection is not None:
                    driver.connection.send(output)

    def _exited(self, process: Process, status: int) -> None:
        for pipe in list(process.pipes):
            self._read_pipe(process, pipe)
        reason = describe_death(process, status)
        if not process.ended and not process.registered and process.environment is not None:
            process.setup_failed = not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL
        elif not process.ended and not process.registered:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                print(f"shoal: workers cannot start: {reason}", file=sys.stderr)
                self._stop()
        process.signal(signal.SIGKILL)  # what it has started itself must not outlive it
        self._on_exit(process, reason)

    def kill_all(self) -> None:
        """Kill all workers."""
        self._loop.unwatch(self._fork_server.fileno())
        os.kill(self._fork_server_pid, signal.SIGKILL)  # first, so that no worker is just being made
        for process in self.processes.values():
            if not process.driver:
                process.kill()
