"""The values of a process's own metrics (`shoal.runtime.util.metrics`), until they are asked for."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..exceptions import InputError
from .reports import MetricReport


@dataclass
class _Entry:
    kind: str
    description: str
    tag_keys: tuple[str, ...]
    boundaries: tuple[float, ...]
    values: dict[tuple[str, ...], list[float]] = field(default_factory=dict)


class MetricTable:
    """All metrics of one process. A value is [number], or for a histogram [count of each bucket …, count, sum]."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def declare(
        self, name: str, kind: str, description: str, tag_keys: Sequence[str], boundaries: Sequence[float] = ()
    ) -> None:
        """Make a metric known.

        Raises:
            InputError: it is known with another kind, other tags or other boundaries.
        """
        entry = _Entry(kind, description, tuple(tag_keys), tuple(boundaries))
        with self._lock:
            known = self._entries.setdefault(name, entry)
        if (known.kind, known.tag_keys, known.boundaries) != (kind, entry.tag_keys, entry.boundaries):
            raise InputError(
                f"metric {name!r} is a {known.kind} with the tags {list(known.tag_keys)} already; it cannot also be a "
                f"{kind} with the tags {list(tag_keys)}. Give it another name"
            )

    def add(self, name: str, tags: tuple[str, ...], by: float) -> None:
        """Add to a counter."""
        with self._lock:
            self._entries[name].values.setdefault(tags, [0.0])[0] += by

    def set(self, name: str, tags: tuple[str, ...], value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._entries[name].values[tags] = [value]

    def observe(self, name: str, tags: tuple[str, ...], value: float) -> None:
        """Add an observation to a histogram."""
        with self._lock:
            entry = self._entries[name]
            numbers = entry.values.setdefault(tags, [0.0] * (len(entry.boundaries) + 2))
            bucket = bisect.bisect_left(entry.boundaries, value)
            if bucket < len(entry.boundaries):
                numbers[bucket] += 1
            numbers[-2] += 1
            numbers[-1] += value

    def report(self) -> list[MetricReport]:
        """Return all values."""
        with self._lock:
            return [
                MetricReport(
                    name,
                    entry.kind,
                    entry.description,
                    list(entry.tag_keys),
                    list(entry.boundaries),
                    [(list(tags), list(numbers)) for tags, numbers in entry.values.items()],
                )
                for name, entry in self._entries.items()
            ]


def merged(reports: Iterable[MetricReport]) -> list[MetricReport]:
    """Return reports of several processes as one for each metric: what is counted is summed up."""
    found: dict[str, tuple[MetricReport, dict[tuple[str, ...], list[float]]]] = {}
    for report in reports:
        first, sums = found.setdefault(report.name, (report, {}))
        if (first.kind, first.tag_keys, first.boundaries) != (report.kind, report.tag_keys, report.boundaries):
            continue  # two processes use one name for different things: the first counts
        for tags, numbers in report.values:
            key = tuple(tags)
            known = sums.get(key)
            sums[key] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]
    return [
        MetricReport(
            first.name,
            first.kind,
            first.description,
            first.tag_keys,
            first.boundaries,
            [(list(tags), numbers) for tags, numbers in sums.items()],
        )
        for first, sums in found.values()
    ]
