"""Batches as tensors, made ahead of the learner."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pyarrow as pa

from ..runtime import InputError, as_int, engine_name
from .blocks import numpy_of
from .reader import Batches, Stats

_AHEAD_BYTES = 16 << 20
_LEAST, _MOST = 2, 32
"""Batches that are made ahead where nobody says how many: what `_AHEAD_BYTES` hold, between these two."""
_AT_ONCE = 4
"""Batches that the thread is told to make at once: waking it takes the learner ten times as long as taking a batch.
More would let tasks that have ended wait for long until others are started."""

Made = tuple[dict[str, Any] | None, dict[str, Any]]
"""A batch, None behind the last one, and where the next one begins."""


class TorchBatches(Iterator[dict[str, Any]]):
    """An iterator over batches of tensors; `state()` is that behind the last batch which was delivered.

    Tensors are copies, of one batch at a time: torch knows no read-only memory, and what is written into shared memory
    would be changed for all readers.
    """

    _thread: ThreadPoolExecutor | None = None

    def __init__(self, batches: Batches, prefetch: int | None, device: str | None) -> None:
        ahead = None if prefetch is None else as_int(prefetch)
        if prefetch is not None and (ahead is None or ahead < 0):
            raise InputError(f"prefetch={prefetch!r}: a number of batches ≥ 0 is wanted, or None")
        self._batches, self._device = batches, device
        self._prefetch, self._by_bytes = _LEAST if ahead is None else ahead, ahead is None
        self._state, self._closed, self._begun = batches.state(), False, False
        self._made: SimpleQueue[Made | BaseException] = SimpleQueue()
        self._taken = 0  # batches whose place the thread has not been told to fill
        # On the serial engine the plan's functions run here, and find generators seeded for them alone.
        is_serial = engine_name() == "serial"
        self._thread = None if ahead == 0 or is_serial else ThreadPoolExecutor(1, "batches")

    def __next__(self) -> dict[str, Any]:
        if self._closed:
            raise StopIteration
        batch, self._state = self._make() if self._thread is None else self._next_made(self._thread)
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def _next_made(self, thread: ThreadPoolExecutor) -> Made:
        if not self._begun:
            self._begun = True
            thread.submit(self._fill)
        made = self._made.get()
        self._taken += 1
        if self._taken >= min(_AT_ONCE, max(1, self._prefetch // 2)):
            thread.submit(self._make_ahead, self._taken)
            self._taken = 0
        if isinstance(made, BaseException):
            raise made
        return made

    def _fill(self) -> None:
        """Make the first batch, which says how many are made ahead if nobody else has, and the others."""
        self._make_ahead(1)
        self._by_bytes = False
        self._make_ahead(self._prefetch - 1)

    def _make_ahead(self, count: int) -> None:
        for _ in range(count):
            if self._closed:
                return
            try:
                made = self._make()
            except BaseException as error:  # raised where its turn comes
                self._made.put(error)
                continue
            self._made.put(made)
            if made[0] is None:
                return

    def _make(self) -> Made:
        table = self._batches.next_table()
        if table is not None and self._by_bytes:
            self._prefetch = min(max(_AHEAD_BYTES // max(table.nbytes, 1), _LEAST), _MOST)
        return None if table is None else tensors_of(table, self._device), self._batches.state()

    def state(self) -> dict[str, Any]:
        """Where the next batch begins, as `Batches.state`."""
        return self._state

    def stats(self) -> Stats:
        """What has been done so far, for batches made ahead, too."""
        return self._batches.stats()

    def close(self) -> None:
        """Drop what was made ahead."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
        self._made = SimpleQueue()
        self._batches.close()

    def __enter__(self) -> TorchBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def tensors_of(table: pa.Table, device: str | None = None) -> dict[str, Any]:
    """Columns of numbers as tensors of their own memory, others as lists of Python values."""
    return {name: _tensor(table[name], device) for name in table.column_names}


def _tensor(column: pa.ChunkedArray, device: str | None) -> Any:
    import torch  # takes seconds, and the driver may have no other use for it

    array = numpy_of(column)
    if array.dtype.kind not in "biuf":
        return column.to_pylist()
    if device is None or torch.device(device).type != "cuda":
        tensor = torch.from_numpy(array.copy())
        return tensor if device is None else tensor.to(device)
    # From pinned memory a GPU copies by itself, while the next batch is made.
    pinned = torch.empty(array.shape, dtype=torch.from_numpy(array[:0].copy()).dtype, pin_memory=True)
    pinned.numpy()[...] = array
    return pinned.to(device, non_blocking=True)
