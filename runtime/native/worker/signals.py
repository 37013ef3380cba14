"""A worker's signals: that which cancels a running task, the terminal's Ctrl-C, and the alarm that limits its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from ...core.refs import short
from ...exceptions import TaskCancelledError
from ..process.interrupts import put_off, send
from ..protocol import messages as m

# A real-time signal: libraries and schedulers have uses of their own for SIGUSR1 and SIGUSR2.
_SIGNAL = signal.SIGRTMIN + 3
# What runs at the end (`__ray_shutdown__`, `__del__`, atexit, threads, helper processes) may take so many seconds.
_END_SECONDS = 4.0


def limit_end() -> None:
    """Set the kernel's alarm that ends this process; from the main thread.

    An alarm comes whatever the process does: no thread of ours would run while native code holds the interpreter. Who
    ends so is found dead as after any other signal, and its process group, helpers included, is killed.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _END_SECONDS)


def ignore_interrupts() -> None:
    """Do nothing at SIGINT: the terminal's Ctrl-C is the driver's business.

    By a handler: what is ignored is ignored by programs that a task starts, too, and those could not be interrupted.
    Processes that it forks are interrupted as any program of Python.
    """
    signal.signal(signal.SIGINT, lambda number, frame: None)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


class TaskInterrupts:
    """Interrupts tasks of the main thread: by a signal, whose handler raises KeyboardInterrupt in the user's code.

    It raises only while that very task runs code of the user's, and not while state of the runtime is half changed
    (see `interrupts.py`); and once for each task, so whatever comes after that, in the user's cleanup or in ours, is
    not interrupted again.

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
            send(_SIGNAL)

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
        if not put_off(_SIGNAL, frame, self._busy):
            self._interrupt()
