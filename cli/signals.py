"""Ctrl-C and SIGTERM: the first ends the work in good order, the second at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Exit code of a command that was stopped from outside (128 + SIGINT).
STOPPED = 130


def _quit(signum: int, frame: FrameType | None) -> None:
    # Nothing is lost by it: files are written under temporary names, and workers end with this process.
    os._exit(STOPPED)


@contextlib.contextmanager
def _handling(first: "signal._HANDLER") -> Iterator[None]:
    before = {number: signal.signal(number, first) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_as_interrupt() -> Iterator[None]:
    """Within the block, the first Ctrl-C or SIGTERM raises KeyboardInterrupt, the second ends the process at once."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, _quit)
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


@contextlib.contextmanager
def stop_as_event() -> Iterator[threading.Event]:
    """Within the block, the first Ctrl-C or SIGTERM sets the event, the second ends the process at once."""
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, _quit)
        stopped.set()

    with _handling(stop):
        yield stopped
