"""How a driver shows what workers print: each line marked with who it was, the same lines of many only once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

from ..protocol import messages as m
from .deduplicator import Deduplicator


class Printer:
    """Prints workers' lines on this process's own standard output and error, whatever they are at the moment.

    Args:
        call_later: has an action called after so many seconds.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], None]) -> None:
        self._call_later = call_later
        self._deduplicators = None
        if os.environ.get("SHOAL_DEDUP_LOGS", "1") != "0":
            self._deduplicators = {False: Deduplicator(), True: Deduplicator()}
        self._ticking = False

    def show(self, message: m.Output) -> None:
        """Print what a worker printed, or hold it back for a moment if others have just said the same."""
        lines = [_as_seen(line) for line in message.text.removesuffix("\n").split("\n")]
        if self._deduplicators is None:
            _print([(message.who, line) for line in lines], message.error)
            return
        deduplicator = self._deduplicators[message.error]
        _print(deduplicator.add(message.who, lines, time.monotonic()), message.error)
        if deduplicator.waits and not self._ticking:
            self._ticking = True
            self._call_later(deduplicator.window, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for error, deduplicator in (self._deduplicators or {}).items():
            _print(deduplicator.expire(time.monotonic()), error)
            if deduplicator.waits and not self._ticking:
                self._ticking = True
                self._call_later(deduplicator.window, self._tick)

    def flush(self) -> None:
        """Print what is held back: the end."""
        for error, deduplicator in (self._deduplicators or {}).items():
            _print(deduplicator.flush(), error)


def _as_seen(line: str) -> str:
    """Return what a terminal would show of a line with carriage returns, such as a progress bar's."""
    return line.rstrip("\r").rpartition("\r")[2]


def _print(lines: list[tuple[str, str]], error: bool) -> None:
    if lines:
        write(sys.stderr if error else sys.stdout, "".join(f"({who}) {line}\n" for who, line in lines))


def write(stream: TextIO | None, text: str) -> None:
    """Write workers' output; a closed output must not end the program itself."""
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except UnicodeEncodeError:
        stream.write(text.encode("ascii", "backslashreplace").decode())
    except (OSError, ValueError):  # the other end of its pipe is closed, or the stream is
        return
