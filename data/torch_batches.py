"""Batches as tensors, made ahead of the learner."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from ..runtime import InputError, as_int
from .blocks import numpy_of
from .reader import Batches, Stats


class TorchBatches(Iterator[dict[str, Any]]):
    """An iterator over batches of tensors; `state()` is that behind the last batch which was delivered.

    Tensors are copies, of one batch at a time: torch knows no read-only memory, and what is written into shared memory
    would be changed for all readers.
    """

    _thread: ThreadPoolExecutor | None = None

    def __init__(self, batches: Batches, prefetch: int, device: str | None) -> None:
        ahead = as_int(prefetch)
        if ahead is None or ahead < 0:
            raise InputError(f"prefetch={prefetch!r}: a number of batches ≥ 0 is wanted")
        self._batches, self._prefetch, self._device = batches, ahead, device
        self._state, self._closed = batches.state(), False
        self._ahead: deque[Future[tuple[dict[str, Any] | None, dict[str, Any]]]] = deque()
        self._thread = ThreadPoolExecutor(1, "batches") if ahead else None

    def __next__(self) -> dict[str, Any]:
        if self._closed:
            raise StopIteration
        if self._thread is None:
            batch, self._state = self._make()
        else:
            while len(self._ahead) < self._prefetch + 1:
                self._ahead.append(self._thread.submit(self._make))
            batch, self._state = self._ahead.popleft().result()
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def _make(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        table = self._batches.next_table()
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
        self._ahead.clear()
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
