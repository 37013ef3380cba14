"""The values of a process's own metrics (`shoal.runtime.util.metrics`), until they are asked for."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from ...exceptions import InputError
from .rows import MetricState


class MetricTable:
    """All metrics of one process."""

    def __init__(self) -> None:
        self._rows: dict[str, MetricState] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._rows)

    def declare(
        self, name: str, kind: str, description: str, tag_keys: Sequence[str], boundaries: Sequence[float] = ()
    ) -> None:
        """Make a metric known.

        Raises:
            InputError: it is known with another kind, other tags or other boundaries.
        """
        row = MetricState(
            name=name, kind=kind, description=description, tag_keys=tuple(tag_keys), boundaries=tuple(boundaries)
        )
        with self._lock:
            known = self._rows.setdefault(name, row)
        if not _same(known, row):
            raise InputError(
                f"metric {name!r} is a {known.kind} with the tags {list(known.tag_keys)} already; it cannot also be a "
                f"{kind} with the tags {list(tag_keys)}. Give it another name"
            )

    def add(self, name: str, tags: tuple[str, ...], by: float) -> None:
        """Add to a counter."""
        with self._lock:
            self._rows[name].values.setdefault(tags, [0.0])[0] += by

    def set(self, name: str, tags: tuple[str, ...], value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._rows[name].values[tags] = [value]

    def observe(self, name: str, tags: tuple[str, ...], value: float) -> None:
        """Add an observation to a histogram."""
        with self._lock:
            row = self._rows[name]
            numbers = row.values.setdefault(tags, [0.0] * (len(row.boundaries) + 2))
            bucket = bisect.bisect_left(row.boundaries, value)
            if bucket < len(row.boundaries):
                numbers[bucket] += 1
            numbers[-2] += 1
            numbers[-1] += value

    def report(self) -> list[MetricState]:
        """Return a copy of all values."""
        with self._lock:
            return [
                replace(row, values={tags: list(numbers) for tags, numbers in row.values.items()})
                for row in self._rows.values()
            ]


def merged(rows: Iterable[MetricState]) -> list[MetricState]:
    """Return the rows of several processes as one for each metric: what is counted is summed up."""
    found: dict[str, MetricState] = {}
    for row in rows:
        first = found.setdefault(row.name, replace(row, values={}))
        if _same(first, row):  # else two processes use one name for different things: the first counts
            for tags, numbers in row.values.items():
                known = first.values.get(tags, [0.0] * len(numbers))
                first.values[tags] = [a + b for a, b in zip(known, numbers, strict=True)]
    return list(found.values())


def _same(one: MetricState, other: MetricState) -> bool:
    return (one.kind, one.tag_keys, one.boundaries) == (other.kind, other.tag_keys, other.boundaries)
