"""Ending a call into a user's code that does not return: an exception is raised in the thread that waits in it."""

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# Nobody sends it but a timer of a process's own CPU time, which hardly any program sets.
_SIGNAL = signal.SIGVTALRM


class CallInterrupted(BaseException):
    """Raised in a call that took too long. No Exception, so that ``except Exception`` in it does not swallow it."""


_wanted: Callable[[], bool] | None = None
"""Whether the call that is to be interrupted still runs, for the signal's handler."""


def _raise_if_wanted(_number: int, _frame: FrameType | None) -> None:
    global _wanted
    wanted, _wanted = _wanted, None
    if wanted is not None and wanted():
        raise CallInterrupted


def prepare() -> None:
    """Have the main thread ready for `interrupt`; only there has a call an effect, and it takes 1 µs."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(_SIGNAL) is signal.SIG_DFL:
        signal.signal(_SIGNAL, _raise_if_wanted)


def interrupt(thread: int, wanted: Callable[[], bool]) -> None:
    """Raise `CallInterrupted` in a thread, if `wanted()` still says so there.

    In the main thread it also ends what waits in the system, such as `time.sleep`; in another one Python raises it at
    its next instruction. Code that does not come back to Python cannot be interrupted.
    """
    global _wanted
    if not wanted():
        return
    if thread == threading.main_thread().ident and signal.getsignal(_SIGNAL) is _raise_if_wanted:
        _wanted = wanted
        signal.pthread_kill(thread, _SIGNAL)
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(CallInterrupted))


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise `CallInterrupted` in the block if it takes longer."""
    prepare()
    done = threading.Event()
    timer = threading.Timer(seconds, interrupt, (threading.get_ident(), lambda: not done.is_set()))
    timer.daemon = True
    with suppress(RuntimeError):  # a process that is at its end starts no more threads
        timer.start()
    try:
        yield
    finally:
        done.set()
        timer.cancel()
