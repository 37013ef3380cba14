"""Signals to the main thread, where Python runs their handlers: now, or a moment later where they come at a bad one."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

_LATER_SECONDS = 0.001


def send(number: int) -> None:
    """Send a signal to the main thread itself: to another one it would not interrupt what the main thread waits in."""
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def send_later(number: int) -> None:
    """Send a signal to the main thread in a moment; returns at once."""
    threading.Thread(target=_wait_and_send, args=(number,), daemon=True).start()


def is_in_finaliser(frame: FrameType | None) -> bool:
    """Return whether Python would swallow what a handler that has interrupted this frame raises."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _wait_and_send(number: int) -> None:
    time.sleep(_LATER_SECONDS)
    send(number)
