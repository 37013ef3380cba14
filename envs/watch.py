"""Noticing calls into environments that do not return.

The group notes which environment it is about to call; a thread looks now and then whether that has changed. So it costs
a step nothing but the note (10 ns).
"""

import functools
import logging
import threading
import time
from collections.abc import Callable

from .group_progress import GroupProgress
from .interrupts import interrupt, prepare

#: Seconds after which a line says which environment has not returned.
PATIENCE_SECONDS = 30.0

# Seconds that an interrupted call has before its process is ended, where that can be.
_GRACE_SECONDS = 2.0

IDLE = -1

logger = logging.getLogger("shoal")


class Watch:
    """Looks after the calls of one group, until `stop`.

    Attributes:
        row: of the environment that is being called; IDLE between calls.
        doing: "step", "reset" or "__init__".
    """

    __slots__ = ("_end", "_limit", "_progress", "_stopped", "_thread", "doing", "row")

    def __init__(self, progress: GroupProgress, limit: float | None, end: Callable[[str], None] | None) -> None:
        """Watch a group.

        Args:
            progress: where its environments are.
            limit: seconds after which a call is interrupted; None: never.
            end: called with a report, from another thread, if that has no effect; None: a line says that nothing can
                be done.
        """
        prepare()
        self.row, self.doing = IDLE, "__init__"
        self._progress, self._limit, self._end = progress, limit, end
        self._stopped, self._thread = threading.Event(), threading.get_ident()
        threading.Thread(target=self._look, name="shoal-env-watch", daemon=True).start()

    def begin(self, doing: str, row: int = IDLE) -> None:
        """Note what the next calls are; they are made in this thread."""
        self.doing, self._thread = doing, threading.get_ident()
        self.row = row

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()

    def _call(self) -> tuple[object, ...] | None:
        """Return what tells one call from the next, or None between calls."""
        row, progress = self.row, self._progress
        return None if row == IDLE else (row, self.doing, progress.steps, progress.episodes[row])

    def _is_in(self, call: tuple[object, ...]) -> bool:
        return self._call() == call

    def _look(self) -> None:
        limit = self._limit
        pause = min(1.0, PATIENCE_SECONDS / 4, limit / 8 if limit else 1.0)
        last, since, said, interrupted, ended = None, time.monotonic(), False, False, False
        while not self._stopped.wait(pause):
            call, now = self._call(), time.monotonic()
            if call is None or call != last:
                last, since, said, interrupted, ended = call, now, False, False, False
            elif limit is not None and now - since > limit + _GRACE_SECONDS and not ended:
                ended = True
                self._give_up(limit)
            elif limit is not None and now - since > limit and not interrupted:
                interrupted = True
                interrupt(self._thread, functools.partial(self._is_in, call))
            elif now - since > PATIENCE_SECONDS and not said:
                said = True
                logger.warning("%s for %.0f s", self._description(), now - since)

    def _description(self) -> str:
        when = f" ({self._progress.when(self.row)})" if self.doing == "step" else ""
        return f"{self._progress.name(self.row)}: {self.doing}{when} has not returned"

    def _give_up(self, limit: float) -> None:
        if self._end is None:
            logger.warning(
                "%s after %g s, and cannot be interrupted: it does not come back to Python, and runs in the program's "
                "own process. With engine='native' its worker would be ended",
                self._description(),
                limit,
            )
        else:
            self._end(f"{self._description()} after {limit:g} s\n{self._progress.note(self.row, self.doing)}")
