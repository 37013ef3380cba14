"""What a worker does about signals that end processes: the terminal's Ctrl-C, and a limit to how long it may end."""

from __future__ import annotations

import os
import signal

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
