"""The node's ears: reads what each worker prints, keeps its end, logs it, and passes it on to the drivers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ..protocol import messages as m
from ..protocol.loop import Loop
from .known_process import Process
from .output import LogFile, Pipe, file_name

# A line that is not ended, as a prompt or a progress bar, is shown after so many seconds.
_MOMENT_SECONDS = 1.0


class OutputRelay:
    """Pipes of all workers.

    Args:
        processes: those that live, by id.
        folder: where log files go.

    Attributes:
        ending: whether no more pids will be told: the fork server is gone.
        elsewhere: passes what is printed on to drivers of another node, if that is where they are.
    """

    def __init__(self, loop: Loop, processes: Mapping[bytes, Process], folder: str) -> None:
        self._loop, self._processes, self._folder = loop, processes, folder
        self.ending = False
        self.elsewhere: Callable[[m.Output], None] | None = None

    def open_pipes(self, process: Process, *errors: bool) -> tuple[int, ...]:
        """Make pipes for a process to be; return their write ends, which are the caller's.

        Args:
            process: who will print into them.
            errors: for each pipe, whether it is for the standard error.
        """
        ends = []
        for error in errors:
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read, False)
            process.pipes.append(Pipe(read, error))
            ends.append(write)
        self.listen(process)
        return tuple(ends)

    def listen(self, process: Process) -> None:
        """Begin to read a process's pipes."""
        for pipe in process.pipes:
            self._loop.watch(pipe.fd, lambda mask, pipe=pipe: self._read(process, pipe))  # type: ignore[misc]

    def read_rest(self, process: Process) -> None:
        """Event: a process has died. Read what it has printed last, half a line included."""
        for pipe in list(process.pipes):
            while pipe in process.pipes and self._read(process, pipe):
                pass
            self._pass_on(process, pipe, pipe.half_line())

    def _read(self, process: Process, pipe: Pipe) -> bool:
        """Read once; return whether there was anything."""
        if process.pid == 0 and not self.ending:
            return False  # it is so young that we are not told its pid yet; what it says waits in the pipe
        data = pipe.read()
        if data is None:
            self._loop.unwatch(pipe.fd)
            os.close(pipe.fd)
            process.pipes.remove(pipe)
            if pipe.error in process.logs:
                process.logs.pop(pipe.error).close()
            return False
        self._pass_on(process, pipe, data)
        if pipe.has_half_line and not pipe.waits:
            pipe.waits = True
            self._loop.call_later(_MOMENT_SECONDS, lambda: self._show_half_line(process, pipe))
        return bool(data)

    def _show_half_line(self, process: Process, pipe: Pipe) -> None:
        pipe.waits = False
        self._pass_on(process, pipe, pipe.half_line())

    def _pass_on(self, process: Process, pipe: Pipe, data: bytes) -> None:
        if not data:
            return
        log = process.logs.get(pipe.error)
        if log is None:
            path = os.path.join(self._folder, file_name(process.title, process.pid, pipe.error))
            log = process.logs[pipe.error] = LogFile(path)
            process.log_path = path
        log.write(data)
        text = data.decode(errors="replace")
        process.note_output(text)
        self.show(m.Output(f"{process.label or process.title} pid={process.pid}", text, pipe.error))

    def show(self, output: m.Output) -> None:
        """Pass on what a worker of this node, or another one, has printed."""
        if self.elsewhere is not None:
            self.elsewhere(output)
        for driver in self._processes.values():
            if driver.output_reader is not None and driver.connection is not None:
                driver.output_reader.show(output)
