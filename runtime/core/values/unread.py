"""Failures that nobody reads: a task that was started and forgotten must not fail without a word."""

from __future__ import annotations

import os

from ..telling import tell
from .packed_exceptions import unread_report

#: Environment variable: 1 means that failures which nobody reads are not mentioned.
IGNORE = "SHOAL_IGNORE_UNHANDLED_ERRORS"
_MOST_REMEMBERED = 256


class UnreadFailures:
    """Mentions, once, each failure whose last reference is gone and that nobody has read.

    Of a task of which somebody has been raised the same type of exception, nothing more is said: who gives up a whole
    list of calls after the first that failed has heard of it.
    """

    def __init__(self) -> None:
        self._is_off = os.environ.get(IGNORE) == "1"
        self._known: dict[object, None] = {}

    def read(self, payload: bytes) -> None:
        """Note that somebody is raised a packed exception, or is given it as an argument's failure."""
        if not self._is_off:
            report = unread_report(payload)
            if report is not None:
                self._remember(report[0])

    def drop(self, payload: bytes) -> None:
        """Print a packed exception that will not be read any more."""
        report = None if self._is_off else unread_report(payload)
        if report is None:
            return
        key, text = report
        if key in self._known or payload in self._known:
            return
        self._remember(payload)
        self._is_off = not tell(f"shoal: nobody has read this error (set {IGNORE}=1 to hide such):\n{text}\n")

    def _remember(self, key: object) -> None:
        if len(self._known) >= _MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[key] = None
