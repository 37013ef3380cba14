"""Rows in one block of the object store, of which new ones take the places of the oldest.

    block  [capacity]: of each row all columns, one behind the other

What is drawn at random is a row, so its columns lie side by side: a minibatch of 256 touches 256 places in memory, not
as many for each column. The store counts the block from the start, shows whose it is, and has it back when the process
ends, however it does. Where the engine has no such store (Ray's takes finished objects alone), it is ordinary memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...runtime import empty
from .batch import Batch
from .tree import Tree, leaves, tree_map


class Ring:
    """The last `capacity` rows of `columns` (trees of `Column`); row number j lies in slot j mod `capacity`."""

    def __init__(self, columns: Mapping[str, Tree], capacity: int) -> None:
        self._columns, self._capacity = dict(columns), capacity
        record = np.dtype([(path, column.dtype, column.shape) for path, column in leaves(self._columns)])
        paths = iter(record.names or ())
        self._paths = {name: tree_map(lambda _: next(paths), tree) for name, tree in self._columns.items()}
        self._rows = empty((capacity,), record)

    def column(self, path: str) -> np.ndarray:
        """A column of all slots, as it lies there: a view with gaps."""
        return self._rows[path]

    def write(self, number: int, rows: Batch) -> None:
        """Put rows there as number `number` and following; at most `capacity`."""
        given = {name: rows[name] for name in self._columns}
        for slots, part in self._runs(number, rows.rows):
            places = self._rows[slots]
            for path, leaf in leaves(given):
                places[path] = leaf[part]

    def copy(self, number: int, count: int) -> Batch:
        """Row `number` and following, in the object store's memory."""
        batch = Batch.allocate(self._columns, count)
        for slots, part in self._runs(number, count):
            found = self._rows[slots]
            for path, leaf in leaves(dict(batch)):
                leaf[part] = found[path]
        return batch

    def take(self, slots: np.ndarray) -> Batch:
        """The rows in `slots` [B]: copies."""
        found = self._rows.take(slots)
        return Batch(
            {
                name: tree_map(lambda path: np.ascontiguousarray(found[path]), paths)
                for name, paths in self._paths.items()
            }
        )

    def _runs(self, number: int, count: int) -> list[tuple[slice, slice]]:
        """Slots of so many rows from `number` on, where they lie side by side, and which of the rows these are."""
        first = number % self._capacity
        before_end = min(count, self._capacity - first)
        runs = [(slice(first, first + before_end), slice(0, before_end))]
        if count > before_end:
            runs.append((slice(0, count - before_end), slice(before_end, count)))
        return runs
