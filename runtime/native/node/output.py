"""What workers print, on its way through the node: from pipes, into log files, on to the drivers; nothing grows."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable

from ..protocol import messages as m
from ..protocol.connection import Connection

_CHUNK = 1 << 16
# Longer lines are cut: something that never ends its line must not fill the memory.
_LONGEST_LINE = 1 << 16
# A log file begins anew when it is this long, bytes; the one before it is kept.
_MOST_LOGGED = 1 << 20
# So much may wait for a driver that doesn't read, characters.
_MOST_WAITING = 1 << 20


class Pipe:
    """The read end of a worker's standard output or, if `error`, of its standard error."""

    def __init__(self, fd: int, error: bool) -> None:
        self.fd, self.error = fd, error
        self.waits = False  # whether a line that is not ended is to be shown in a moment
        self._rest = b""

    def read(self) -> bytes | None:
        """Return whole lines; b"" if there are none now, None at the end. Half a line waits for its other half."""
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            return self.half_line() or None
        lines, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._rest += data
            return self.half_line() if len(self._rest) > _LONGEST_LINE else b""
        whole, self._rest = self._rest + lines + newline, rest
        return whole

    @property
    def has_half_line(self) -> bool:
        """Whether a line was begun and not ended."""
        return bool(self._rest)

    def half_line(self) -> bytes:
        """Return the line that was not ended, which won't be any more."""
        rest, self._rest = self._rest, b""
        return rest


class LogFile:
    """A file made when something is first written; it and its predecessor hold the latest output.

    Args:
        path: the file; its predecessor has ".1" added.
        most: size in bytes from which on it begins anew.
    """

    def __init__(self, path: str, most: int = _MOST_LOGGED) -> None:
        self.path = path
        self._most = most
        self._fd: int | None = None
        self._size = 0
        self._failed = False

    def write(self, data: bytes) -> None:
        """Add to the file. If that fails, say so once, and give up: logs are not worth the run."""
        if self._failed:
            return
        try:
            if self._fd is None or self._size > self._most:
                self._open()
            assert self._fd is not None
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            self._size += len(data)
        except OSError as error:
            self._failed = True
            with contextlib.suppress(OSError):
                print(f"shoal: {self.path} cannot be written: {error}; no more is logged there", file=sys.stderr)

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            os.replace(self.path, self.path + ".1")
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0

    def close(self) -> None:
        """Close the file; it is complete."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class NodeLog:
    """What the node itself has to say, by its file; what matters to the user appears on the screen, too."""

    def __init__(self, folder: str) -> None:
        self._file = LogFile(os.path.join(folder, "node.log"))

    def note(self, text: str) -> None:
        """Write a line into the file."""
        self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode(errors="replace"))

    def say(self, text: str) -> None:
        """Write a line into the file and to the driver."""
        self.note(text)
        with contextlib.suppress(OSError):  # the driver is gone
            print(f"shoal: {text}", file=sys.stderr, flush=True)


def file_name(title: str, pid: int, error: bool) -> str:
    """Return the name of a worker's log file."""
    readable = re.sub(r"[^\w.\-\[\]]+", "_", title)[:80]
    return f"worker-{readable}-{pid}.{'err' if error else 'out'}"


class OutputReader:
    """One driver as the reader of workers' output: what it can't take yet waits, but only so much.

    Args:
        connection: the driver's.
        logs: the folder where all that was printed can be found, or at least its end.
    """

    def __init__(self, connection: Connection, logs: str) -> None:
        self._connection, self._logs = connection, logs
        self._waiting: deque[m.Output] = deque()
        self._size = 0
        self._dropped = 0

    def show(self, output: m.Output) -> None:
        """Pass something on, now or when there is room; leave it out if too much waits already."""
        if not self._waiting and not self._connection.blocked:
            self._connection.send(output)
        elif self._size + len(output.text) <= _MOST_WAITING:
            self._note_dropped()
            self._waiting.append(output)
            self._size += len(output.text)
        else:
            self._dropped += output.text.count("\n") or 1

    def _note_dropped(self) -> None:
        if self._dropped:
            text = f"{self._dropped} lines are left out here: they came faster than they could be shown"
            self._waiting.append(m.Output("shoal", f"{text}; look into {self._logs}\n", True))
            self._dropped = 0

    def resume(self) -> None:
        """The driver's connection may have room again."""
        if self._dropped and not self._waiting:
            self._note_dropped()
        while self._waiting and not self._connection.blocked:
            output = self._waiting.popleft()
            self._size -= len(output.text)
            self._connection.send(output)
            if not self._waiting:
                self._note_dropped()

    def finish(self, clock: Callable[[], float], seconds: float) -> None:
        """Pass on all that waits, though that may take a moment: the node ends."""
        deadline = clock() + seconds
        self._connection.sock.settimeout(seconds)
        self._connection.flush()
        while (self._waiting or self._dropped) and clock() < deadline:
            self.resume()
