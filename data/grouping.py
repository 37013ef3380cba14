"""Groups and their aggregates: in each unit by itself, then over the units in their order.

So sums of floats are added in one order, however many readers there are.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .blocks import joined, require_columns

FUNCTIONS = ("count", "max", "mean", "min", "std", "sum", "var")
"""What can be asked of a group; null does not count. std and var are those of a sample (divided by n − 1)."""

_PARTS = {
    "count": ("count",),
    "max": ("max",),
    "mean": ("count", "sum"),
    "min": ("min",),
    "std": ("count", "mean", "variance"),
    "sum": ("sum",),
    "var": ("count", "mean", "variance"),
}

_NUMBER = "\0"
"""A column that no dataset has: the number of the row."""

Aggregates = tuple[tuple[str, str, str], ...]
"""(name of the new column, column, function) of each."""


def aggregate_unit(table: pa.Table, keys: tuple[str, ...], aggregates: Aggregates) -> pa.Table:
    """One row per group of a block: the keys, and of each column what its aggregates are made of."""
    require_columns("groupby", (*keys, *(column for _, column, _ in aggregates)), table.column_names)
    wanted = sorted({(column, part) for _, column, function in aggregates for part in _PARTS[function]})
    found = table.group_by(list(keys), use_threads=False).aggregate([(column, part) for column, part in wanted])
    return found.rename_columns([*keys, *(_part(column, part) for column, part in wanted)])


def _part(column: str, part: str) -> str:
    """What a part of an aggregate is called on the way, as no column is."""
    return f"{column}\0{part}"


def aggregate_units(keys: tuple[str, ...], aggregates: Aggregates, *units: pa.Table) -> pa.Table:
    """The aggregates of all groups, in the order of the keys, from what `aggregate_unit` made of each block."""
    table = joined(units)
    if table.num_rows == 0:
        return table
    numbered = table.append_column(_NUMBER, pa.array(np.arange(table.num_rows)))
    groups = numbered.group_by(list(keys), use_threads=False).aggregate([(_NUMBER, "list")])
    groups = groups.sort_by([(name, "ascending") for name in keys])
    rows = groups[f"{_NUMBER}_list"].combine_chunks()
    group_of = np.empty(table.num_rows, np.int64)
    group_of[rows.flatten().to_numpy()] = np.repeat(np.arange(groups.num_rows), rows.value_lengths().to_numpy())
    columns = {name: groups[name] for name in keys}
    for name, column, function in aggregates:
        columns[name] = _combine(function, column, table, group_of, groups.num_rows)
    return pa.table(columns)


def _combine(function: str, column: str, table: pa.Table, group_of: np.ndarray, groups: int) -> pa.Array:
    if function in ("sum", "min", "max", "count"):
        part = pa.table({"group": group_of, "x": table[_part(column, function)]})
        whole = part.group_by("group", use_threads=False).aggregate([("x", "sum" if function == "count" else function)])
        return whole.sort_by("group").column(1)
    counts = table[_part(column, "count")].to_numpy().astype(np.float64)
    total = np.bincount(group_of, counts, groups)

    def numbers(part: str) -> np.ndarray:
        found = pc.fill_null(pc.cast(table[_part(column, part)], pa.float64()), 0.0)
        return found.to_numpy()

    with np.errstate(invalid="ignore", divide="ignore"):  # groups without a value: NaN, which becomes null
        if function == "mean":
            result = np.bincount(group_of, numbers("sum"), groups) / total
        else:
            means = numbers("mean")
            mean = np.bincount(group_of, counts * means, groups) / total
            # Of deviations from the whole mean: sums of squares would cancel where the mean is large.
            squares = counts * (numbers("variance") + (means - mean[group_of]) ** 2)
            result = np.bincount(group_of, squares, groups) / (total - 1)
            result = np.sqrt(result) if function == "std" else result
    return pa.array(result, mask=total < (1 if function == "mean" else 2))
