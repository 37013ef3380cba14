"""A log that strangers cannot flood: a few records of each kind a minute, and how many were left out."""

import logging
import time
from collections.abc import Callable

# Kinds that are told apart; strangers must not be able to make the table grow either.
_MOST_KINDS = 100


class LogLimit(logging.Filter):
    """Lets `most` records with the same text (before its arguments) through in `seconds`."""

    def __init__(self, most: int = 5, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        self._kinds: dict[str, tuple[float, int]] = {}  # text to begin of its time and records seen since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is let through; the first after others were left out says how many."""
        now, text = self._clock(), str(record.msg)
        begin, seen = self._kinds.get(text, (now, 0))
        if now - begin >= self._seconds:
            if seen > self._most:
                record.msg = f"{text} ({seen - self._most} more like it were left out)"
            begin, seen = now, 0
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[text] = begin, seen + 1
        return seen < self._most
