"""How a driver shows what workers print: each line marked with who it was, the same lines of many only once.

Which lines are shown, and when, is a pure machine (`Deduplicator`): lines in, lines out, the time is passed in.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ...core.telling import tell
from ..protocol import messages as m

_NUMBER = re.compile(r"\d")
_HINT = " (SHOAL_DEDUP_LOGS=0 shows each of them)"


@dataclass
class _Pattern:
    """Lines that differ in numbers only. `count`: how many of them are not shown yet, `who` and `line` the last one."""

    since: float
    who: str
    line: str
    count: int = 0
    sources: set[str] = field(default_factory=set)


class Deduplicator:
    """Ray's rule: a line is shown at once; the same from another process within the window is counted instead.

    Two lines are the same if their words without digits are. When the window is over, the last of those counted is
    shown with their number, and the next window begins; a single one is shown as it is. What one process repeats by
    itself is all shown, since it means it.

    Args:
        window: seconds.
        most_patterns: how many different lines are remembered; beyond, the oldest are settled early.
    """

    def __init__(self, window: float = 5.0, most_patterns: int = 10_000) -> None:
        self.window = window
        self._most = most_patterns
        self._recent: dict[str, _Pattern] = {}  # in the order of `since`
        self._counted = 0
        self._hinted = False

    @property
    def waits(self) -> bool:
        """Whether lines are held back, to be shown by `expire` or `flush`."""
        return self._counted > 0

    def add(self, who: str, lines: list[str], now: float) -> list[tuple[str, str]]:
        """Event: a process has printed lines. Return what to show now, as (who, line)."""
        shown = self.expire(now)
        for line in lines:
            key = " ".join(word for word in line.split() if not _NUMBER.search(word))
            known = self._recent.get(key) if key else None
            if known is not None:
                known.sources.add(who)
                if len(known.sources) > 1:
                    known.who, known.line, known.count = who, line, known.count + 1
                    self._counted += 1
                    continue
            elif key:
                self._recent[key] = _Pattern(now, who, line, sources={who})
                if len(self._recent) > self._most:
                    shown += self._settle(next(iter(self._recent)))
            shown.append((who, line))
        return shown

    def expire(self, now: float) -> list[tuple[str, str]]:
        """Event: time has passed. Return what to show of the windows that are over."""
        shown: list[tuple[str, str]] = []
        while self._recent:
            key, pattern = next(iter(self._recent.items()))
            if now - pattern.since < self.window:
                break
            repeated = pattern.count > 1
            shown += self._settle(key)
            if repeated:
                pattern.since, pattern.count = now, 0
                self._recent[key] = pattern
        return shown

    def flush(self) -> list[tuple[str, str]]:
        """Event: the end. Return what is held back."""
        shown: list[tuple[str, str]] = []
        while self._recent:
            shown += self._settle(next(iter(self._recent)))
        return shown

    def _settle(self, key: str) -> list[tuple[str, str]]:
        pattern = self._recent.pop(key)
        self._counted -= pattern.count
        if pattern.count == 0:
            return []
        if pattern.count == 1:
            return [(pattern.who, pattern.line)]
        hint, self._hinted = "" if self._hinted else _HINT, True
        return [(pattern.who, f"{pattern.line} [repeated {pattern.count}x across processes]{hint}")]


class Printer:
    """Prints workers' lines on this process's own standard output and error, whatever they are at the moment.

    Args:
        call_later: has an action called after so many seconds.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], None]) -> None:
        self._call_later = call_later
        self._deduplicators = None
        if os.environ.get("SHOAL_DEDUP_LOGS", "1") != "0":
            self._deduplicators = {False: Deduplicator(), True: Deduplicator()}
        self._ticking = False

    def show(self, message: m.Output) -> None:
        """Print what a worker printed, or hold it back for a moment if others have just said the same."""
        lines = [_as_seen(line) for line in message.text.removesuffix("\n").split("\n")]
        if self._deduplicators is None:
            _print([(message.who, line) for line in lines], message.error)
            return
        deduplicator = self._deduplicators[message.error]
        _print(deduplicator.add(message.who, lines, time.monotonic()), message.error)
        if deduplicator.waits and not self._ticking:
            self._ticking = True
            self._call_later(deduplicator.window, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for error, deduplicator in (self._deduplicators or {}).items():
            _print(deduplicator.expire(time.monotonic()), error)
            if deduplicator.waits and not self._ticking:
                self._ticking = True
                self._call_later(deduplicator.window, self._tick)

    def flush(self) -> None:
        """Print what is held back: the end."""
        for error, deduplicator in (self._deduplicators or {}).items():
            _print(deduplicator.flush(), error)


def _as_seen(line: str) -> str:
    """Return what a terminal would show of a line with carriage returns, such as a progress bar's."""
    return line.rstrip("\r").rpartition("\r")[2]


def _print(lines: list[tuple[str, str]], error: bool) -> None:
    if lines:
        tell("".join(f"({who}) {line}\n" for who, line in lines), error=error)
