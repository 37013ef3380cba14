"""The node's daemon as the driver that has started it sees it: a child with a voice."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import deque

from ...core.reports.events import RECORD_CALL_SITES
from ...core.telling import tell
from ...exceptions import NodeDiedError
from ..node.deaths import signal_name

_SHUTDOWN_SECONDS = 5
_TAIL_LINES = 20

_DAEMON = f"{__package__.rpartition('.')[0]}.node.daemon"


def _command() -> list[str]:
    return [sys.executable, "-m", _DAEMON]


def _environment(record_call_sites: bool) -> dict[str, str]:
    environment = os.environ | {
        # The same hashes in every run and worker, and one thread per process unless told otherwise: processes are the
        # unit of parallelism here, and threads that fight for a core made training thirty times slower.
        "PYTHONHASHSEED": "0",
        **{name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
    }
    if record_call_sites:
        environment[RECORD_CALL_SITES] = "1"
    return environment


def become_node(settings: bytes, record_call_sites: bool) -> None:
    """Turn this process into a daemon with these settings, see `NodeSettings.line`; does not return."""
    # Through a file in memory, since others may read a process's arguments: there is a secret among the settings.
    settings_fd = os.memfd_create("shoal-settings")
    os.write(settings_fd, settings)
    os.lseek(settings_fd, 0, os.SEEK_SET)
    os.dup2(settings_fd, 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, _command(), _environment(record_call_sites))  # noqa: S606  # no shell is wanted


class NodeProcess:
    """A daemon that comes up, and then waits to be set up. What it prints is shown, and is part of the errors that its
    death causes.

    Args:
        record_call_sites: have its workers note where each object is made.
    """

    def __init__(self, record_call_sites: bool) -> None:
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = subprocess.Popen(
            _command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(record_call_sites),
            start_new_session=True,  # the terminal's Ctrl-C is for the driver alone
        )
        assert self._process.stderr is not None
        self._errors = self._process.stderr

    def set_up(self, settings: bytes) -> str:
        """Tell it what it is to be, and wait until it is; return where other nodes can join ("": nowhere).

        Args:
            settings: what it reads, see `NodeSettings.line`.

        Raises:
            NodeDiedError: it did not start; with what it printed.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        ready = b""
        with process.stdout, contextlib.suppress(BrokenPipeError):  # if it is dead already, the missing answer tells
            with process.stdin:
                process.stdin.write(settings)
            ready = process.stdout.readline()
        word, _, address = ready.decode().rstrip("\n").partition(" ")
        if word != "ready":
            text = self._errors.read().decode(errors="replace").strip()
            self._errors.close()
            said = "".join(f"\n    {line}" for line in text.splitlines()[-_TAIL_LINES:])
            raise NodeDiedError(
                f"the node's daemon did not start: {_how(process.wait())}; "
                + (f"it said:{said}" if said else f"it said nothing. Try {sys.executable} -m {_DAEMON}")
            )
        os.set_blocking(self.fileno(), False)
        return address

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """Return the descriptor of its standard error, to be watched; see `read`."""
        return self._errors.fileno()

    def read(self) -> bool:
        """Show what it has printed; False if it will print no more."""
        while not self._errors.closed:
            try:
                data = os.read(self.fileno(), 1 << 16)
            except BlockingIOError:
                return True
            except (OSError, ValueError):  # another thread has closed it just now
                return False
            if not data:
                break
            text = data.decode(errors="replace")
            self._tail.extend(text.splitlines())
            tell(text)
        return False

    def why_it_died(self) -> str:
        """Return the sentence that says how it died, with its last words; for when its connection has ended."""
        self.read()
        try:
            how = _how(self._process.wait(1))
        except subprocess.TimeoutExpired:
            how = "it has closed its connection, but lives"
        said = "".join(f"\n    {line}" for line in self._tail)
        return f"the daemon of this node has died: {how}. Start the runtime again" + (
            f"; its last lines:{said}" if said else ""
        )

    def kill(self) -> None:
        """Kill it: it will not be used."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def stop(self) -> None:
        """Wait for it to end, which it was told to; not for ever."""
        try:
            self._process.wait(_SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Show its last words, and forget it."""
        self.read()
        self._errors.close()


def _how(code: int) -> str:
    return signal_name(-code) if code < 0 else f"exit code {code}"
