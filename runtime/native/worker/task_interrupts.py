"""How a running task is cancelled: a signal to the main thread, which raises KeyboardInterrupt in the user's code.

Python runs signal handlers in the main thread between any two of its instructions, so the handler raises only while
that very task runs code of the user's, and not while state of the runtime is half changed: then the signal is sent
again a moment later, as for Ctrl-C (`interrupts.py`). It raises once for each task, so whatever comes after that, in
the user's cleanup or in ours, is not interrupted again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from ...exceptions import TaskCancelledError
from ...refs import short
from ..process import main_thread
from ..protocol import messages as m

# A real-time signal: libraries and schedulers have uses of their own for SIGUSR1 and SIGUSR2.
_SIGNAL = signal.SIGRTMIN + 3


class TaskInterrupts:
    """Interrupts tasks of the main thread.

    Args:
        busy: whether the main thread is in the middle of changing state.
        cancel_children: cancels what a task has submitted.
    """

    def __init__(self, busy: Callable[[], bool], cancel_children: Callable[[bytes, bool], None]) -> None:
        self._busy, self._cancel_children = busy, cancel_children
        self._running: bytes | None = None  # the task whose user code runs now
        self._requests: dict[bytes, m.CancelTask] = {}
        signal.signal(_SIGNAL, self._on_signal)

    def request(self, message: m.CancelTask) -> None:
        """Interrupt a task that runs or is about to; nothing happens if it has ended; from any thread."""
        self._requests[message.task] = message
        if self._running == message.task:
            main_thread.send(_SIGNAL)

    def forget(self) -> None:
        """Forget requests that came too late; from the main thread, when it has nothing to run."""
        self._requests.clear()

    def call(self, task: bytes, name: str, function: Callable, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the user's in the main thread.

        Raises:
            TaskCancelledError: it was interrupted.
        """
        try:
            try:
                self._running = task
                if task in self._requests:  # the request came before, so it sent no signal
                    self._interrupt()
                return function(*args, **kwargs)
            finally:
                self._running = None
        except KeyboardInterrupt as interrupt:
            self._running = None  # no signal raises any more: this one has been delivered
            request = self._requests.pop(task, None)
            if request is None:
                raise
            if request.recursive:
                self._cancel_children(task, request.force)
            raise TaskCancelledError(f"{name} ({short(task)}) was cancelled while it ran") from interrupt

    def _interrupt(self) -> None:
        self._running = None
        raise KeyboardInterrupt("this task was cancelled")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._running is None or self._running not in self._requests:
            return  # it has ended meanwhile
        if self._busy() or main_thread.is_in_finaliser(frame):
            main_thread.send_later(_SIGNAL)
        else:
            self._interrupt()
