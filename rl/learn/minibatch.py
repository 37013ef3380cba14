"""Rows of a batch: how many there are, and some of them.

With a memory its column `rows` holds `Sequences`; then the other columns have a row for each of their steps, and only
whole sequences can be taken. This module doesn't import torch (see `lazy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.tree import leaves, tree_map
from ..lazy import load, torch

if TYPE_CHECKING:
    from torch import Tensor


def rows_of(batch: Mapping[str, Any]) -> int:
    """Rows that there are."""
    sequences = _sequences_of(batch)
    if sequences is not None:
        return len(sequences.valid)
    return len(next(leaf for _, leaf in leaves(dict(batch))))


def units_of(batch: Mapping[str, Any]) -> int:
    """What can be divided: rows, or whole sequences."""
    sequences = _sequences_of(batch)
    return rows_of(batch) if sequences is None else len(sequences.starts)


def cut(batch: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Rows, or sequences, from `start` to before `stop`."""
    sequences = _sequences_of(batch)
    if sequences is None:
        return {name: tree_map(lambda leaf: leaf[start:stop], column) for name, column in batch.items()}
    return take_sequences(batch, torch.arange(start, stop, device=sequences.starts.device))


def take_rows(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The `rows` [M] of an array [B, …]; float32 aligned as torch does it: a product's bits may depend on that."""
    if column.dtype != np.float32:
        return column.take(rows, 0)
    into = torch.empty(len(rows), *column.shape[1:], dtype=torch.float32).numpy()
    return np.take(column, rows, 0, into, "clip")  # "raise" would copy twice


def take_sequences(batch: Mapping[str, Any], chosen: Tensor) -> dict[str, Any]:
    """The sequences `chosen` [K] int64, and the other columns' rows of their steps."""
    part, rows = batch["rows"].take(chosen)
    return {name: part if name == "rows" else column[rows] for name, column in batch.items()}


def _sequences_of(batch: Mapping[str, Any]) -> Any:
    found = batch.get("rows")
    return found if isinstance(found, load("Sequences")) else None
