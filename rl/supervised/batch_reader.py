"""A stream's batches, read once for all learners: each takes those rows whose gradients it computes.

Whoever asks says which step it is at, and where that begins. So a reader keeps nothing that must not be lost: one that
was killed, or is asked for what it has given long ago, opens the stream there again.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import ObjectRef, get, put
from ..learn.reduction_tree import even_parts
from .stream import Stream

if TYPE_CHECKING:
    from ...data import Batches

BEGINNING = b""
"""The place of the first step."""
_KEPT = 4
"""Batches that are kept for who has not taken them yet: learners are at most a step apart, and ask one ahead."""
_BOXED = 100_000
"""Bytes of a part from which on it is put into the object store, so that nobody gets it who does not want it."""


@dataclass(frozen=True)
class ReadBatch:
    """A batch as it was read.

    Attributes:
        place: where the next one begins.
        labels: of all rows [B] float32.
        parts: where each of the parts begins, and its features: an array, or a reference to one.
    """

    place: bytes
    labels: np.ndarray
    parts: tuple[tuple[int, np.ndarray | ObjectRef], ...]

    def features(self, start: int, stop: int) -> np.ndarray:
        """Features of rows from `start` to before `stop`, which lie in one part; a copy."""
        begin, part = max((each for each in self.parts if each[0] <= start), key=lambda each: each[0])
        values: np.ndarray = get(part) if isinstance(part, ObjectRef) else part
        return np.array(values[start - begin : stop - begin])


class BatchReader:
    """Actor class, or an object of the only learner's. Batches have `size` rows, in `parts` that are taken apart."""

    def __init__(self, rows: Stream, size: int, parts: int = 1) -> None:
        self._rows, self._size, self._parts = rows, size, parts
        self._batches: Batches | None = None
        self._next = 0
        self._kept: deque[tuple[int, ReadBatch]] = deque(maxlen=_KEPT)

    def take(self, step: int, place: bytes | None = None) -> ReadBatch | None:
        """The batch of a step, which begins at `place`. Who doesn't know where gets None if it would have to be looked
        for. Raises InputError if the place is of another plan, or rows cannot be learned from."""
        found = next((read for number, read in self._kept if number == step), None)
        if found is not None:
            return found
        if self._batches is None or step != self._next:
            if place is None:
                return None
            self._open(place)
        self._next = step + 1
        try:
            read = self._read()
        except Exception:
            self._batches = None  # what was read is lost: who asks again says where
            if place is None:  # and is told; who asks ahead may never want it
                return None
            raise
        self._kept.append((step, read))
        return read

    def _open(self, place: bytes) -> None:
        if self._batches is not None:
            self._batches.close()
        self._kept.clear()
        self._batches = self._rows.endless(self._size, None if place == BEGINNING else json.loads(place))

    def _read(self) -> ReadBatch:
        batches: Any = self._batches
        number = batches.state()["batch"]
        features, labels = self._rows.arrays(next(batches), number)
        share = features.nbytes // self._parts
        parts = tuple(
            (start, put(features[start:stop]) if self._parts > 1 and share >= _BOXED else features[start:stop])
            for start, stop in even_parts(len(labels), self._parts)
            if start < stop
        )
        return ReadBatch(json.dumps(batches.state()).encode(), labels, parts)
