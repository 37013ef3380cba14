"""Ctrl-C in a driver: kept out of the stretches in which state is half changed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..process import main_thread

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptGuard:
    """Delays signals whose handlers may raise, as long as the main thread is `busy`.

    Python runs signal handlers in the main thread between any two of its instructions. A KeyboardInterrupt between
    reading a reply and storing it would lose the reply, and whoever catches the interrupt and goes on, to save a
    checkpoint, would wait for it for ever; one in a ``__del__``, such as that of a reference, Python would swallow.
    Hence a signal that comes at a bad moment is sent again a moment later; that costs nothing when there is none.
    Handlers that are installed while the guard is up replace it.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._guarded: dict[int, tuple[Any, Any]] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may set handlers
        for number in _SIGNALS:
            theirs = signal.getsignal(number)
            if callable(theirs):
                ours = self._guard(theirs)
                self._guarded[number] = (ours, theirs)
                signal.signal(number, ours)

    def _guard(self, theirs: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
        def handle(number: int, frame: FrameType | None) -> Any:
            if self._busy() or main_thread.is_in_finaliser(frame):
                main_thread.send_later(number)
                return None
            return theirs(number, frame)

        return handle

    def remove(self) -> None:
        """Put the handlers back, those that are still ours."""
        if threading.current_thread() is threading.main_thread():
            for number, (ours, theirs) in self._guarded.items():
                if signal.getsignal(number) is ours:
                    signal.signal(number, theirs)
