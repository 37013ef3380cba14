"""Which rows the gradient steps of a network learn from; imports torch when needed.

Both kinds are functions of a place: that of a table is the number of the step, that of a stream what its reader noted
after the step before. So a fit that goes on in the middle of an epoch goes on with the next rows.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import stream
from ..lazy import torch
from .stream import Stream
from .table import Table

if TYPE_CHECKING:
    from torch import Tensor

    from ...data import Batches


class Minibatches(ABC):
    """Minibatches, one after the other."""

    @abstractmethod
    def go_to(self, step: int, place: bytes | None) -> None:
        """Go on before a step, with what `place` gave there; None: at the beginning."""

    @abstractmethod
    def next(self) -> tuple[Tensor, Tensor]:
        """Features [B, …] and labels [B] of the next step."""

    @abstractmethod
    def place(self) -> bytes | None:
        """Where the next step is, if its number does not say it."""


class TableMinibatches(Minibatches):
    """Those of a table in memory."""

    def __init__(self, table: Table, batch_size: int, seed: int) -> None:
        self._features = torch.from_numpy(np.array(table.features))
        self._labels = labels_of(table, table.labels)
        self._batch_size, self._seed, self._step = batch_size, seed, 0

    def go_to(self, step: int, place: bytes | None) -> None:
        """As `Minibatches`."""
        self._step = step

    def next(self) -> tuple[Tensor, Tensor]:
        """As `Minibatches`."""
        chosen = torch.from_numpy(rows_of_step(len(self._labels), self._batch_size, self._seed, self._step))
        self._step += 1
        return self._features[chosen], self._labels[chosen]

    def place(self) -> None:
        """None: the number of the step says it."""


class StreamMinibatches(Minibatches):
    """Those of a stream, which tasks read ahead. They cross from one epoch into the next, so all are of one size."""

    def __init__(self, rows: Stream, batch_size: int) -> None:
        self._rows, self._batch_size = rows, batch_size
        self._batches: Batches | None = None

    def go_to(self, step: int, place: bytes | None) -> None:
        """As `Minibatches`. Raises InputError if the place is of another plan."""
        if self._batches is not None:
            self._batches.close()
        self._batches = self._rows.endless(self._batch_size, None if place is None else json.loads(place))

    def next(self) -> tuple[Tensor, Tensor]:
        """As `Minibatches`."""
        assert self._batches is not None
        number = self._batches.state()["batch"]
        features, labels = self._rows.arrays(next(self._batches), number)
        return torch.from_numpy(features), labels_of(self._rows, labels)

    def place(self) -> bytes:
        """The reader's state."""
        assert self._batches is not None
        return json.dumps(self._batches.state()).encode()


def minibatches_of(rows: Table | Stream, batch_size: int, seed: int) -> Minibatches:
    """Minibatches of rows; `seed` orders those of a table, a stream has an order."""
    return TableMinibatches(rows, batch_size, seed) if isinstance(rows, Table) else StreamMinibatches(rows, batch_size)


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
