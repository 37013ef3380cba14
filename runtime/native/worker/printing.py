"""A worker's standard output and error: whole lines go out at once, a line that is not ended after a moment."""

from __future__ import annotations

import contextlib
import io
import threading

_MOMENT_SECONDS = 0.3


class PrintedStream(io.TextIOWrapper):
    """A line-buffered text stream over a descriptor that stays open; what is not a whole line is not kept for long.

    UTF-8, whatever the locale: the node reads it as that, and the driver writes it in its own encoding.
    """

    def __init__(self, fd: int) -> None:
        raw = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self._is_partial = self._waits = False

    def write(self, text: str, /) -> int:
        """Write text; see `io.TextIOBase.write`."""
        count = super().write(text)
        self._is_partial = not text.endswith("\n")
        if self._is_partial and not self._waits:
            with contextlib.suppress(RuntimeError):  # the interpreter ends, which flushes
                timer = threading.Timer(_MOMENT_SECONDS, self._moment)
                timer.daemon = self._waits = True
                timer.start()
        return count

    def _moment(self) -> None:
        self._waits = False
        self.end_of_task()

    def end_of_task(self) -> None:
        """Send a line that was not ended."""
        if self._is_partial:
            self._is_partial = False
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or the user has closed it
                self.flush()
