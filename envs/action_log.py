"""The actions of the episodes in progress, from which an episode can be replayed."""

import math

import numpy as np


class ActionLog:
    """The last actions of a simulation group: one row [size, …] per step, in one array that grows by doubling.

    Discrete actions take one byte each, so an episode of a million steps is 1 MB; that much travels with each state.

    Attributes:
        full: whether `make_room` must come before the next `append`.
    """

    def __init__(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._rows = np.empty((256, *row_shape), dtype)
        self._used = 0

        self.full = False

    @property
    def bytes_of_action(self) -> float:
        """Bytes of one environment's action; infinity where they are Python's objects."""
        return math.inf if self._rows.dtype.hasobject else self._rows[0, 0].nbytes

    def append(self, actions: np.ndarray) -> None:
        """Add the actions of one step; the log must not be full."""
        self._rows[self._used] = actions
        self._used += 1
        self.full = self._used == len(self._rows)

    def last(self, count: int) -> np.ndarray:
        """Return a view of the last `count` rows (all, if there are fewer), valid until the next `append`."""
        return self._rows[max(self._used - count, 0) : self._used]

    def bytes_of_row(self, row: int, count: int) -> bytes | None:
        """Return the last `count` actions of one environment as bytes; None if there are fewer."""
        start = self._used - count
        return None if start < 0 else self._rows[start : self._used, row].tobytes()

    def replace(self, rows: np.ndarray) -> None:
        """Forget everything and begin with these rows."""
        self._rows = np.empty((max(256, 2 * len(rows)), *self._rows.shape[1:]), self._rows.dtype)
        self._rows[: len(rows)] = rows
        self._used = len(rows)
        self.full = False

    def make_room(self, keep: int) -> None:
        """Forget all but the last `keep` rows, and grow if these fill more than half of the log."""
        kept = self.last(keep)
        if 2 * len(kept) <= len(self._rows):
            self._rows[: len(kept)] = kept.copy()
            self._used = len(kept)
            self.full = False
        else:
            self.replace(kept)
