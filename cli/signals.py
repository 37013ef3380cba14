"""Ctrl-C and SIGTERM: the first ends the work in good order, a later one at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from .. import runtime

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Exit code of a command that was stopped from outside (128 + SIGINT).
STOPPED = 130

#: Set in the environment of a seed's training: it stops when its standard input is closed.
STOP_WITH_STDIN = "SHOAL_STOP_WITH_STDIN"


def _quit(signum: int, frame: FrameType | None) -> None:
    # Nothing is lost by it: files are written under temporary names, and workers end with this process.
    os._exit(STOPPED)


@contextlib.contextmanager
def _handling(first: "signal._HANDLER") -> Iterator[None]:
    before = {number: signal.signal(number, first) for number in _SIGNALS}
    runtime.guard_signals()  # it may have been started early
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_with(pipe: int) -> None:
    """Stop this process as Ctrl-C does once the other end of a pipe, a descriptor, is closed: when the process that
    holds it ends, by whatever means."""

    def wait() -> None:
        os.read(pipe, 1)  # not by a file object, whose lock would be held when the interpreter ends
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, name="shoal parent", daemon=True).start()


class Stop:
    """What a second Ctrl-C would lose.

    Attributes:
        at_risk: returns what is not saved yet, as a text such as "2,048 steps"; "" if that is nothing.
    """

    def __init__(self) -> None:
        self.at_risk: Callable[[], str] = str
        self._warned = False

    def begin(self, signum: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt: the handler of the first signal."""
        self.finish()
        raise KeyboardInterrupt

    def finish(self) -> None:
        """Treat the next signal as a later one: the work is being ended already."""
        for number in _SIGNALS:
            signal.signal(number, self._again)

    def _again(self, signum: int, frame: FrameType | None) -> None:
        unsaved = self.at_risk()
        if unsaved and not self._warned:
            self._warned = True
            _say(f"still saving; once more ends at once, and {unsaved} are lost")
            return
        if unsaved:
            _say(f"ended before the checkpoint was written: {unsaved} are lost")
        _quit(signum, frame)


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())  # print may be what the signal interrupts


@contextlib.contextmanager
def stop_as_interrupt() -> Iterator[Stop]:
    """Within the block, the first Ctrl-C or SIGTERM raises KeyboardInterrupt. A later one ends the process at once; if
    something would be lost by that, one says so before, and the next ends it."""
    stop = Stop()
    with _handling(stop.begin):
        yield stop


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
