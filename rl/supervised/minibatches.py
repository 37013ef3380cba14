"""Which rows the gradient steps of a network learn from; imports torch when needed.

Both kinds are functions of a place: that of a table is the number of the step, that of a stream what its reader noted
after the step before. So a fit that goes on in the middle of an epoch goes on with the next rows. A learner reads those
rows of a minibatch whose gradients it computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import stream
from ...runtime import ActorHandle, engine_name, exceptions, get
from ..lazy import torch
from .batch_reader import BEGINNING, BatchReader, ReadBatch
from .stream import Stream
from .table import Table

if TYPE_CHECKING:
    from torch import Tensor


class Minibatch(ABC):
    """The rows of one gradient step."""

    def __init__(self, rows: Table | Stream, labels: np.ndarray) -> None:
        self._of, self._labels = rows, labels

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self._labels)

    @property
    def labels(self) -> Tensor:
        """Of all rows [B], as a loss takes them."""
        return labels_of(self._of, self._labels)

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Features [m, …] and labels [m] of rows from `start` to before `stop`."""
        return torch.from_numpy(self.features(start, stop)), labels_of(self._of, self._labels[start:stop])

    @abstractmethod
    def features(self, start: int, stop: int) -> np.ndarray:
        """Of these rows: float32, writable."""


class TableMinibatch(Minibatch):
    """Rows of a table, which lies in the object store once for all learners."""

    def __init__(self, table: Table, chosen: np.ndarray) -> None:
        super().__init__(table, np.take(table.labels, chosen))
        self._table, self._chosen = table, chosen

    def features(self, start: int, stop: int) -> np.ndarray:
        """As `Minibatch`."""
        return np.take(self._table.features, self._chosen[start:stop], axis=0)


class StreamMinibatch(Minibatch):
    """Rows that a reader has read."""

    def __init__(self, rows: Stream, read: ReadBatch, again: Callable[[], ReadBatch]) -> None:
        super().__init__(rows, read.labels)
        self._read, self._again = read, again

    def features(self, start: int, stop: int) -> np.ndarray:
        """As `Minibatch`."""
        try:
            return self._read.features(start, stop)
        except exceptions.ObjectLostError:  # the reader has died since it was read
            self._read = self._again()
            return self._read.features(start, stop)


class Minibatches(ABC):
    """Minibatches, one after the other."""

    @abstractmethod
    def go_to(self, step: int, place: bytes | None) -> None:
        """Go on before a step, with what `place` gave there; None: at the beginning."""

    @abstractmethod
    def next(self) -> Minibatch:
        """That of the next step."""

    @abstractmethod
    def place(self) -> bytes | None:
        """Where the next step is, if its number does not say it."""


class TableMinibatches(Minibatches):
    """Those of a table in memory."""

    def __init__(self, table: Table, batch_size: int, seed: int) -> None:
        self._table, self._batch_size, self._seed, self._step = table, batch_size, seed, 0

    def go_to(self, step: int, place: bytes | None) -> None:
        """As `Minibatches`."""
        self._step = step

    def next(self) -> Minibatch:
        """As `Minibatches`."""
        chosen = rows_of_step(len(self._table), self._batch_size, self._seed, self._step)
        self._step += 1
        return TableMinibatch(self._table, chosen)

    def place(self) -> None:
        """None: the number of the step says it."""


class StreamMinibatches(Minibatches):
    """Those of a stream. They cross from one epoch into the next, so all are of one size."""

    def __init__(self, rows: Stream, reader: BatchReader | ActorHandle) -> None:
        self._rows, self._reader = rows, reader
        self._step, self._place = 0, BEGINNING
        self._ahead: Callable[[], ReadBatch | None] | None = None
        # On the serial engine reading runs the plan's functions here, which seed the generators that a step draws from.
        alone = isinstance(reader, BatchReader) and engine_name() != "serial"
        self._thread = ThreadPoolExecutor(1, "batches") if alone else None

    def go_to(self, step: int, place: bytes | None) -> None:
        """As `Minibatches`. Raises InputError if the place is of another plan."""
        self._step, self._place = step, BEGINNING if place is None else place
        self._ahead = None

    def next(self) -> Minibatch:
        """As `Minibatches`."""
        read, again = self._take(), partial(self._take_at, self._step, self._place)
        self._step, self._place = self._step + 1, read.place
        return StreamMinibatch(self._rows, read, again)

    def _take(self) -> ReadBatch:
        found = None if self._ahead is None else self._ahead()
        if found is None:  # the reader is at another place: it was killed, or somebody has gone back
            found = self._take_at(self._step, self._place)
        self._ahead = self._ask(self._step + 1)
        return found

    def _take_at(self, step: int, place: bytes) -> ReadBatch:
        found = self._ask(step, place)()
        assert found is not None, "a reader that is told the place has what begins there"
        return found

    def _ask(self, step: int, place: bytes | None = None) -> Callable[[], ReadBatch | None]:
        """Have a batch read, by a thread or an actor; what is returned waits for it."""
        if not isinstance(self._reader, BatchReader):
            return partial(get, self._reader.take.remote(step, place))
        if self._thread is None:
            return partial(self._reader.take, step, place)
        return self._thread.submit(self._reader.take, step, place).result

    def place(self) -> bytes:
        """The reader's state."""
        return self._place


def minibatches_of(rows: Table | Stream, batch_size: int, seed: int, reader: ActorHandle | None = None) -> Minibatches:
    """Minibatches of rows; `seed` orders those of a table, a stream has an order, and is read by the actor `reader`
    where several learners share it."""
    if isinstance(rows, Table):
        return TableMinibatches(rows, batch_size, seed)
    return StreamMinibatches(rows, reader or BatchReader(rows, batch_size))


def rows_of_step(rows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Which rows of a table a gradient step learns from. Each epoch is all rows in an order of its own; its last
    minibatch may be smaller."""
    epoch, position = divmod(step, -(-rows // batch_size))
    return _order(rows, seed, epoch)[position * batch_size : (position + 1) * batch_size]


@lru_cache(maxsize=1)  # a million rows take 15 ms, which each step of an epoch would
def _order(rows: int, seed: int, epoch: int) -> np.ndarray:
    return stream(seed, "epoch", epoch).permutation(rows)


def labels_of(rows: Any, labels: np.ndarray) -> Tensor:
    """Labels as a loss takes them: codes of classes as int64, quantities as float32."""
    return torch.from_numpy(np.array(labels)).to(torch.float32 if rows.schema.classes is None else torch.int64)
