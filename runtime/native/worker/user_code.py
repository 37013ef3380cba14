"""Where a worker enters code of the user's and comes out of it again: a process forked in there must not come out."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

from ...core.results import exit_code
from ...core.telling import tell, tell_rest


class UserCode:
    """Surrounds code of the user's, in a ``with``.

    A process that was forked in there has the worker's sockets and its place in the program. If it came out, it would
    go on as a second worker: its result, or the exception that it ends with, would be sent as the task's, and messages
    that are the worker's would be read by it. Hence it ends where it leaves the user's code. What ends by itself in
    there, as processes of `multiprocessing` do, never comes here.
    """

    __slots__ = ("_worker",)

    def __init__(self) -> None:
        self._worker = os.getpid()

    def __enter__(self) -> None:
        """Enter it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Leave it; a forked process ends here."""
        if os.getpid() != self._worker:
            _end(error)


def _end(error: BaseException | None) -> None:
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = exit_code(error)
            if isinstance(error.code, str):
                tell(f"{error.code}\n")
        elif error is not None:
            code = 1
            tell("".join(traceback.format_exception(error)))
        tell_rest()
    finally:
        os._exit(code)
