"""Sorting: each unit by itself, then ranges of keys merged, a unit for each range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .blocks import joined, require_columns

_SAMPLES = 64
"""Keys of each unit by which ranges are cut."""


def sort_block(table: pa.Table, keys: tuple[str, ...], descending: bool) -> pa.Table:
    """The rows of a block by their keys, equal ones in the order in which they are; NaN and null at the end."""
    require_columns("sort", keys, table.column_names)
    order = "descending" if descending else "ascending"
    return table.combine_chunks().take(pc.sort_indices(table, sort_keys=[(name, order) for name in keys]))


def boundaries(key: str, descending: bool, ranges: int, *blocks: pa.Table) -> list[Any]:
    """The ranges − 1 keys, or fewer, at which ranges of about equal size begin."""
    seen: list[Any] = []
    for block in blocks:
        count = _comparable(block, key)
        picks = np.unique(np.linspace(0, max(count - 1, 0), min(_SAMPLES, count)).astype(np.int64))
        seen += [block[key][int(index)].as_py() for index in picks]
    seen.sort(reverse=descending)
    cuts = [seen[len(seen) * part // ranges] for part in range(1, ranges)] if seen else []
    return list(dict.fromkeys(cuts))


def merge_range(
    keys: tuple[str, ...], descending: bool, cuts: Sequence[Any], index: int, *blocks: pa.Table
) -> pa.Table:
    """The rows of range number `index` of all sorted blocks, sorted."""
    parts = []
    for block in blocks:
        start = _position(block, keys[0], descending, cuts[index - 1]) if index else 0
        stop = _position(block, keys[0], descending, cuts[index]) if index < len(cuts) else block.num_rows
        parts.append(block.slice(start, stop - start))
    table = joined(parts)
    return sort_block(table, keys, descending) if table.num_rows else table


def _comparable(block: pa.Table, key: str) -> int:
    """How many rows at the beginning have a key that can be compared: neither null nor NaN."""
    if key not in block.column_names:
        return 0
    column = block[key]
    missing = pc.sum(pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))).as_py() or 0
    return len(column) - int(missing)


def _position(block: pa.Table, key: str, descending: bool, cut: Any) -> int:
    """The first row that does not come before `cut`."""
    low, high = 0, _comparable(block, key)
    while low < high:
        middle = (low + high) // 2
        value = block[key][middle].as_py()
        if value > cut if descending else value < cut:
            low = middle + 1
        else:
            high = middle
    return low


def count_of_ranges(size: int, target: int) -> int:
    """Into how many ranges so many bytes are cut."""
    return max(1, math.ceil(size / target))
