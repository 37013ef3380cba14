"""The node's processes: how workers are made, heard and found to be dead."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable

from ...core.resources.machine_memory import biggest_processes, read_memory, read_oom_kills
from ..protocol import messages as m
from ..protocol.loop import Loop
from ..store.board import MOST_PROCESSES, Board, new_board
from .deaths import Death, killed_by_kernel
from .known_process import Process
from .memory_monitor import MemoryMonitor
from .output import NodeLog
from .relay import OutputRelay

# A worker that can't even start is our problem or the machine's: give up instead of forking for ever.
_MOST_FAILED_STARTS = 5
_LINES_FOR_DRIVERS = 8
# A process takes two pipes, its connection, up to two arenas and two log files; and the node has some of its own.
_FILES_OF_PROCESS = 7
_FILES_OF_NODE = 64
#: With fewer files that it may open a node does not begin: that is room for eight workers.
LEAST_FILES = _FILES_OF_NODE + (_LINES_FOR_DRIVERS + 8) * _FILES_OF_PROCESS
# So many start at one time: whoever wants a thousand may be gone before they are made, or have surroundings in which
# none can start. One that takes longer than so many seconds keeps no other from starting.
_MOST_STARTING = max(16, 2 * (os.cpu_count() or 1))
_START_SECONDS = 5.0
_LOOK_SECONDS = 0.5
# How long, in seconds, the runtime's end waits for what actors do at theirs.
_FAREWELL_SECONDS = 2.0


def most_processes() -> int:
    """Return how many processes a node can have: each needs a line of the board, and files that the node opens."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MOST_PROCESSES
    return min(MOST_PROCESSES, (files - _FILES_OF_NODE) // _FILES_OF_PROCESS)


class Workers:
    """All drivers and workers of the node, and its line to the fork server.

    Args:
        fork_server: its process.
        logs: the folder for log files.
        memory_usage_threshold: the part of the memory above which a worker is ended.
        on_exit: told of every worker that has ended, with the reason, while its connection can still be read.
        stop: ends the node; called if no worker can be made any more.

    Attributes:
        processes: those that live, by id.
        prefix: the node's part of its processes' ids.
        relay: hears what they print.
        on_new: told of each new process.
        board: who views which blocks of shared memory; `board_fd`: its descriptor.
    """

    def __init__(
        self,
        loop: Loop,
        fork_server: Process,
        logs: str,
        on_exit: Callable[[Process, str], None],
        stop: Callable[[], None],
        *,
        memory_usage_threshold: float,
    ) -> None:
        self.processes: dict[bytes, Process] = {}
        self.board_fd = new_board()
        self.board = Board(self.board_fd, 0)
        assert fork_server.connection is not None
        self._loop, self._fork_server, self._fork_server_process = loop, fork_server.connection, fork_server
        self.relay = OutputRelay(loop, self.processes, logs)
        self._log = NodeLog(logs)
        self._on_exit, self._stop = on_exit, stop
        self._by_pid: dict[int, Process] = {}
        self._to_fork: deque[Process] = deque()
        self._starting: dict[m.ProcessId, float] = {}  # since when, monotonic seconds
        self._looks_later = False
        self._free_lines = list(range(most_processes() - 1, -1, -1))
        self.prefix = os.urandom(4)
        self._numbers = 0
        self.on_new: Callable[[m.ProcessId], None] = lambda process: None
        self._failed_starts = 0
        self._oom_kills = read_oom_kills()
        self._monitor = MemoryMonitor(loop.call_later, self.processes, memory_usage_threshold)
        self._fork_server.on_blocked = loop.wait_for_room
        loop.watch(self._fork_server.fileno(), lambda mask: self._read_fork_server())

    @property
    def room(self) -> int:
        """How many workers more there may be: each needs a line of the board, and drivers must find one, too."""
        return max(0, len(self._free_lines) - _LINES_FOR_DRIVERS)

    def new(self, title: str) -> Process:
        """Return the record of a new process."""
        self._numbers += 1
        process = Process(self.prefix + self._numbers.to_bytes(4, "big"), self._free_lines.pop(), title)
        self.processes[process.id] = process
        self.board.open_line(process.index)
        self.on_new(process.id)
        return process

    def driver_came(self, process: Process, pid: int) -> None:
        """A driver has registered: from the first one on, the fork server's output is shown."""
        if not any(other.driver for other in self.processes.values()):
            self.relay.listen(self._fork_server_process)
        process.driver, process.pid = True, pid

    def work_for(self, head: Callable[[m.Output], None]) -> None:
        """The drivers are elsewhere: `head` passes on to them what is printed here."""
        self.relay.elsewhere = head
        self.relay.listen(self._fork_server_process)

    def came_up(self, process: Process, pid: int) -> None:
        """A worker has registered."""
        process.pid, process.registered = pid, True
        self._failed_starts = 0
        self._is_up_or_gone(process)

    def forget(self, process: Process) -> None:
        """A process is gone."""
        self._is_up_or_gone(process)
        del self.processes[process.id]
        self.board.clear_line(process.index)
        self._free_lines.append(process.index)

    def preload(self, message: m.Preload) -> None:
        """Tell the fork server to import modules."""
        self._fork_server.send(message)

    def fork(self, title: str, environment: m.Environment | None = None) -> Process:
        """Have the fork server make a worker, which registers when it is up; later, if many are about to start."""
        process = self.new(title)
        process.environment = environment
        self._monitor.start()
        if self._to_fork or len(self._starting) >= _MOST_STARTING:
            self._to_fork.append(process)
            self._look_later()
        else:
            self._send_fork(process)
        return process

    def _send_fork(self, process: Process) -> None:
        self._starting[process.id] = time.monotonic()
        ends = self.relay.open_pipes(process, False, True)
        self._fork_server.send(m.Fork(process.id, process.title, process.environment), ends)

    def _fork_next(self) -> None:
        """Have those made that may start now; those that nobody wants any more have ended."""
        unwanted = [process for process in self._to_fork if process.ended]
        if unwanted:
            self._to_fork = deque(process for process in self._to_fork if not process.ended)
        since = time.monotonic() - _START_SECONDS
        self._starting = {process: begun for process, begun in self._starting.items() if begun > since}
        while self._to_fork and len(self._starting) < _MOST_STARTING:
            self._send_fork(self._to_fork.popleft())
        if self._to_fork:
            self._look_later()
        for process in unwanted:
            self._on_exit(process, f"{process.title} was ended before it was made")

    def _look_later(self) -> None:
        if not self._looks_later:
            self._looks_later = True
            self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looks_later = False
        self._fork_next()

    def _is_up_or_gone(self, process: Process) -> None:
        if self._starting.pop(process.id, None) is not None and self._to_fork:
            self._loop.call_later(0, self._fork_next)

    def _take_those_in(self, environment: m.Environment | None) -> list[Process]:
        """Take out, of those that are to start, the ones in surroundings in which none can."""
        found = [process for process in self._to_fork if process.environment == environment]
        self._to_fork = deque(process for process in self._to_fork if process.environment != environment)
        return found

    def _read_fork_server(self) -> None:
        if self._fork_server.blocked:
            self._fork_server.flush()
        messages = self._fork_server.receive()
        if messages is None:
            self.relay.read_rest(self._fork_server_process)
            said = "".join(f"\n    {line}" for line in self._fork_server_process.tail)
            self._log.say("the fork server has died; without it no worker can be made" + (said and f": {said}"))
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
                self._exited(self._by_pid.pop(message.pid), message)

    def _exited(self, process: Process, message: m.Exited) -> None:
        self.relay.read_rest(process)
        status = message.status
        kills, self._oom_kills = self._oom_kills, read_oom_kills()
        if process.starved is None and killed_by_kernel(status, process.ended, kills, self._oom_kills):
            process.starved = "the kernel"
        reason = Death(
            who=f"{process.pid} ({process.title})",
            status=status,
            expected=process.ended,
            peak=message.peak,
            memory=read_memory(),
            starved=process.starved,
            biggest=biggest_processes() if process.starved else (),
            tail=process.tail,
            log=process.log_path,
        ).describe()
        if not process.ended and not process.registered and process.environment is not None:
            process.setup_failed = not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL
        elif not process.ended and not process.registered:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                self._log.say(f"workers cannot start: {reason}")
                self._stop()
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            self._log.say(
                f"{reason}: what it does at its end (atexit, __del__, threads, helper processes) took too long"
            )
        elif not process.ended:
            self._log.note(reason)
        process.signal(signal.SIGKILL)  # what it has started itself must not outlive it
        self._on_exit(process, reason)
        for other in self._take_those_in(process.environment) if process.setup_failed else ():
            other.setup_failed = True
            self._on_exit(other, reason)

    def on_label(self, process: m.ProcessId, message: m.Label) -> None:
        self.processes[process].label = message.text or None
        self.processes[process].hears_end = message.hears_end

    def end_all(self) -> None:
        """Tell the actors that want to hear of the end, and kill all workers when these have ended, or soon."""
        told = [process for process in self.processes.values() if process.hears_end and not process.ended]
        for process in told:
            process.ended = True
            if process.connection is not None:
                process.connection.send(m.Exit())
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while any(process.id in self.processes for process in told) and time.monotonic() < deadline:
            self._loop.poll(0.05)
        self._kill_all()

    def _kill_all(self) -> None:
        self._loop.unwatch(self._fork_server.fileno())
        os.kill(self._fork_server_process.pid, signal.SIGKILL)  # first, so that no worker is just being made
        self.relay.ending = True
        for process in self.processes.values():
            if not process.driver:
                process.kill()
