"""Batches: named arrays, or trees of them, that have their leading axes in common.

    [T, N, …]   time-major: T steps of N environments side by side         (what a rollout gives)
    [B, …]      rows                                                      (minibatches, transitions of a replay buffer)

Which columns there are is the algorithm's business; what is done to all columns alike is done here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime import empty
from .tree import Tree, leaves, tree_map


@dataclass(frozen=True)
class Column:
    """One column of a batch without its leading axes."""

    shape: tuple[int, ...] = ()
    dtype: Any = np.float32
    scratch: bool = False
    """Whether it is only for the rollout worker, which drops it before the rollout is sent."""

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Batch(Mapping[str, Tree]):
    """Columns by name. `leading` is the number of axes that all columns share, 1 or 2.

    Raises ValueError, naming column and shapes, if they differ in those.
    """

    __slots__ = ("_columns", "leading", "shape")

    def __init__(self, columns: Mapping[str, Tree], leading: int = 1) -> None:
        self._columns, self.leading = dict(columns), leading
        self.shape: tuple[int, ...] = (0,) * leading
        first = None
        for name, tree in self._columns.items():  # of rollouts of a few steps thousands are made in a second
            for path, leaf in ((name, tree),) if isinstance(tree, np.ndarray) else leaves(tree, name):
                shape = leaf.shape[:leading]
                if first is None:
                    first, self.shape = path, shape
                elif shape != self.shape:
                    raise ValueError(f"column {path!r} has leading axes {shape}, column {first!r} has {self.shape}")

    def __getitem__(self, name: str) -> Tree:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"the batch has no column {name!r}, but {', '.join(self._columns)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __reduce__(self) -> Any:
        return Batch, (self._columns, self.leading)

    def __repr__(self) -> str:
        columns = ", ".join(f"{path}: {leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves(self._columns))
        return f"Batch({columns})"

    @property
    def rows(self) -> int:
        """Product of the leading axes."""
        return math.prod(self.shape)

    @staticmethod
    def allocate(columns: Mapping[str, Tree], *leading: int, shared: bool = True) -> Batch:
        """A writable batch of these columns (trees of `Column`): where it is `shared`, in the object store's memory but
        for scratch columns.

        Returning it from an actor's method seals it there, without a copy.
        """

        def array(column: Column) -> np.ndarray:
            shape, dtype = (*leading, *column.shape), np.dtype(column.dtype)
            return empty(shape, dtype) if shared and not column.scratch else np.empty(shape, dtype)

        return Batch({name: tree_map(array, tree) for name, tree in columns.items()}, len(leading))

    def only(self, names: Sequence[str]) -> Batch:
        """The columns `names`, in that order."""
        return Batch({name: self[name] for name in names}, self.leading)

    def plus(self, **columns: Tree) -> Batch:
        """This batch with further, or replaced, columns."""
        return Batch(self._columns | columns, self.leading)

    def flat(self) -> Batch:
        """[T, N, …] as [T · N, …]: row t · N + i is step t of environment i. Views, where memory allows."""
        axes = self.leading
        return Batch(self._mapped(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:])), 1)

    def take(self, rows: Any) -> Batch:
        """The rows `rows` (a slice, integers [M], or of B rows which ones, booleans [B]) of the first axis."""
        if isinstance(rows, slice):
            return Batch(self._mapped(lambda leaf: leaf[rows]), self.leading)
        places = rows.nonzero()[0] if rows.dtype == np.bool_ else rows
        return Batch(self._mapped(lambda leaf: leaf.take(places, 0)), self.leading)

    @staticmethod
    def side_by_side(batches: Sequence[Batch]) -> Batch:
        """Several groups [T, N₁, …], [T, N₂, …] as [T, N₁ + N₂, …], in the order given."""
        return _joined(batches, axis=1)

    @staticmethod
    def end_to_end(batches: Sequence[Batch]) -> Batch:
        """Batches joined on their first axis, in the order given."""
        return _joined(batches, axis=0)

    def _mapped(self, function: Any) -> dict[str, Tree]:
        return {name: tree_map(function, tree) for name, tree in self._columns.items()}


def _joined(batches: Sequence[Batch], axis: int) -> Batch:
    """Batches joined on one axis; ValueError, naming the column and the shapes, if they do not fit."""
    first = batches[0]
    if len(batches) == 1:
        return first
    columns = {}
    for name in first:
        try:
            columns[name] = tree_map(lambda *parts: np.concatenate(parts, axis), *(batch[name] for batch in batches))
        except (ValueError, KeyError) as error:
            shapes = [[leaf.shape for _, leaf in leaves(batch.get(name, {}))] for batch in batches]
            raise ValueError(
                f"column {name!r} of the batches has shapes {shapes}, which do not fit together"
            ) from error
    return Batch(columns, first.leading)
