"""Tells a driver's user why a wait takes so long: one line, once for each reason."""

from __future__ import annotations

import os
import threading
import time

from ...core.reports.diagnosis import Diagnosis
from ...core.reports.rows import DEFAULT_LIMIT, unix_ms
from ...core.telling import tell
from ...exceptions import InputError, NodeDiedError
from ..protocol.observer import observe
from .links import Links
from .reactor import Waiter
from .waits import Waits

#: Environment variable: after how many seconds a wait is explained; 0: never.
WARN_AFTER_SECONDS = "SHOAL_WARN_AFTER_SECONDS"
_DEFAULT_SECONDS = 30.0


class LongWaits:
    """Watches the waits of a process, in whichever thread reads; costs nothing but a timer while something waits.

    Args:
        links, waits: the process's connections and waits.
        seconds: a wait that is longer is explained.
    """

    def __init__(self, links: Links, waits: Waits, seconds: float) -> None:
        self._links, self._waits, self._seconds = links, waits, seconds
        self._armed = False
        self._asked: set[Waiter] = set()
        self._told: set[str] = set()

    def begin(self) -> None:
        """Event: a thread begins to wait."""
        if not self._armed:
            self._armed = True
            self._links.reactor.call_later(self._seconds, self._look)

    def _look(self) -> None:
        with self._links.lock:
            self._armed = False
            now = time.monotonic()
            waits = {waiter: wait[1] for waiter, wait in list(self._waits.running.items())}
            self._asked &= waits.keys()
            late = {waiter for waiter, since in waits.items() if since + self._seconds <= now} - self._asked
            if late and self._links.broken is None:
                self._asked |= late
                since = {unix_ms(waits[waiter]) for waiter in late}
                threading.Thread(target=self._explain, args=(since,), name="shoal-long-waits", daemon=True).start()
            due = [since + self._seconds for waiter, since in waits.items() if waiter not in self._asked]
            if due:
                self._armed = True
                self._links.reactor.call_later(max(0.0, min(due) - now), self._look)

    def _explain(self, since: set[int | None]) -> None:
        try:
            diagnosis = Diagnosis(observe(self._links.names.session, ["tasks"], DEFAULT_LIMIT))
        except (InputError, NodeDiedError):  # the runtime ends, and the waits with it
            return
        own = diagnosis.processes.get(self._links.me.hex())
        for wait in own.waits if own is not None else ():
            verdict = diagnosis.judge_wait(wait)
            if wait.since_ms in since and wait.missing and verdict.waits_for not in self._told:
                self._told.add(verdict.waits_for)
                tell(
                    f"shoal: {wait.thread} has waited {diagnosis.seconds(wait.since_ms)} in get or wait: it "
                    f"{verdict.reason}. `shoal status` shows more; {WARN_AFTER_SECONDS}=0 has this never told\n"
                )


def warn_after() -> float:
    """Return after how many seconds waits are explained; 0: never.

    Raises:
        InputError: the environment variable holds no number.
    """
    text = os.environ.get(WARN_AFTER_SECONDS, "")
    try:
        return float(text) if text else _DEFAULT_SECONDS
    except ValueError:
        raise InputError(f"{WARN_AFTER_SECONDS}={text!r}: want a number of seconds, or 0 for never") from None
