"""Signals whose handlers may raise, kept out of the stretches in which state is half changed.

Python runs signal handlers in the main thread between any two of its instructions. A KeyboardInterrupt between reading
a reply and storing it would lose the reply, and whoever catches the interrupt and goes on, to save a checkpoint, would
wait for it for ever; one in a ``__del__``, such as that of a reference, Python would swallow. Hence a signal that comes
at a bad moment is sent again a moment later; that costs nothing when there is none.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LATER_SECONDS = 0.001


def send(number: int) -> None:
    """Send a signal to the main thread itself: to another one it would not interrupt what the main thread waits in."""
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def put_off(number: int, frame: FrameType | None, busy: Callable[[], bool]) -> bool:
    """For a handler that has interrupted a frame: whether it comes at a bad moment; it is called again in a moment."""
    if not busy() and not _is_in_finaliser(frame):
        return False
    threading.Thread(target=_wait_and_send, args=(number,), daemon=True).start()
    return True


def _is_in_finaliser(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _wait_and_send(number: int) -> None:
    time.sleep(_LATER_SECONDS)
    send(number)


class InterruptGuard:
    """Delays Ctrl-C in a driver, as long as the main thread is `busy`.

    Handlers that are installed while the guard is up replace it, until it is put up again. A notebook's kernel installs
    its own before each cell; there that happens as a cell begins.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._guarded: dict[Any, Any] = {}  # a handler of ours → the one that it guards
        self.put_up()
        self._shell = _shell()
        if self._shell is not None:
            self._shell.events.register("pre_execute", self.put_up)

    def put_up(self) -> None:
        """Guard the handlers of now."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may set handlers
        for number in _SIGNALS:
            theirs = signal.getsignal(number)
            if callable(theirs) and theirs not in self._guarded:
                known = (ours for ours, guarded in self._guarded.items() if guarded is theirs)
                ours = next(known, None) or self._guard(theirs)
                self._guarded[ours] = theirs
                signal.signal(number, ours)

    def _guard(self, theirs: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
        def handle(number: int, frame: FrameType | None) -> Any:
            return None if put_off(number, frame, self._busy) else theirs(number, frame)

        return handle

    def remove(self) -> None:
        """Put the handlers back, those that are still ours."""
        if self._shell is not None:
            self._shell.events.unregister("pre_execute", self.put_up)
            self._shell = None
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                ours = signal.getsignal(number)
                if ours in self._guarded:
                    signal.signal(number, self._guarded[ours])


def _shell() -> Any:
    """The IPython that this process runs in, such as a notebook's kernel; None elsewhere."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
