"""Blocks: `pyarrow.Table`s, and what they are to the user's functions: columns of arrays, or rows.

A column of arrays of one shape is a fixed-shape tensor: one stretch of memory, which numpy sees without a copy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..runtime import InputError, InputTypeError, nearest

Columns = dict[str, np.ndarray]
BATCH_FORMATS = ("numpy", "pyarrow", "rows")


def column_of(values: Any) -> pa.Array | pa.ChunkedArray:
    """A column of one value for each row.

    An array [n, …] or a list of n arrays of one shape becomes a fixed-shape tensor, one-dimensional and other values
    what pyarrow makes of them. NaN stays NaN; None is null.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if type(values).__module__ == "torch":
        values = values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray):
        values = list(values)
        first: Any = next((value for value in values if value is not None), None)
        if getattr(first, "ndim", 0) and all(
            getattr(value, "shape", None) == first.shape and value.dtype == first.dtype for value in values
        ):
            values = np.stack([np.asarray(value) for value in values])
        elif isinstance(first, np.datetime64):  # days among which pyarrow takes in an array alone
            values = np.array(values, first.dtype)
        else:
            values = [_plain(value) for value in values]
    if isinstance(values, np.ndarray) and values.ndim > 1:
        if values.size == 0:
            storage = pa.array([], pa.list_(pa.from_numpy_dtype(values.dtype), int(np.prod(values.shape[1:]))))
            tensor = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:])
            return pa.ExtensionArray.from_storage(tensor, storage)
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
    return pa.array(values)


def _plain(value: Any) -> Any:
    if type(value).__module__ == "torch":
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value


def table_of(columns: Any) -> pa.Table:
    """A table of what a function over batches returns: columns by name, or a table.

    Raises:
        InputTypeError: it is neither, or a column is a single value.
        InputError: columns of different lengths; names them.
    """
    if isinstance(columns, pa.Table):
        return columns
    if isinstance(columns, pa.RecordBatch):
        return pa.Table.from_batches([columns])
    if not isinstance(columns, Mapping):
        raise InputTypeError(f"a batch is a dictionary of columns or a pyarrow.Table, not {type(columns).__name__}")
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not getattr(values, "ndim", 1):
            raise InputTypeError(
                f"column {name!r} of a batch is {values!r:.60}; a list or array of a value a row is wanted"
            )
    made = {str(name): _column(name, values) for name, values in columns.items()}
    lengths = {name: len(column) for name, column in made.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns of a batch have different lengths: {lengths}")
    return pa.table(made)


def table_of_rows(rows: Sequence[Any]) -> pa.Table:
    """A table of rows: dictionaries, or other values, which become the column "item". What a row lacks is null."""
    if not rows:
        return pa.table({})
    made = [row if isinstance(row, Mapping) else {"item": row} for row in rows]
    names = dict.fromkeys(name for row in made for name in row)
    return pa.table({str(name): _column(name, [row.get(name) for row in made]) for name in names})


def _column(name: Any, values: Any) -> pa.Array | pa.ChunkedArray:
    """As `column_of`; what is no column is told with its name, and with the first row that does not go with others."""
    try:
        return column_of(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:

        def fails(rows: int) -> bool:
            try:
                column_of(values[:rows])
            except Exception:  # of the same kind: it is `error` that is told
                return True
            return False

        row = bisect_left(range(1, len(values) + 1), True, key=fails)
        told = repr(values[row]) if row < len(values) else "…"
        raise InputTypeError(f"column {name!r}: row {row} is {told:.60}, which cannot be in it: {error}") from error


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries of Python values; a tensor is an array."""
    columns = [_values_of(column) for column in table.itercolumns()]
    for values in zip(*columns, strict=True):
        yield dict(zip(table.column_names, values, strict=True))


def _values_of(column: pa.ChunkedArray) -> Iterable[Any]:
    if not _is_tensor(column.type):
        values: list[Any] = column.to_pylist()
        return values
    arrays = iter(numpy_of(column.drop_null()))
    return (next(arrays) if there else None for there in column.is_valid().to_pylist())


def columns_of(table: pa.Table) -> Columns:
    """The columns as arrays, without a copy where the memory allows it: numbers and tensors without nulls.

    Nulls in numbers and tensors become NaN (so integers become float64); texts, lists and others are arrays of objects.
    """
    return {name: numpy_of(table[name]) for name in table.column_names}


def numpy_of(column: pa.ChunkedArray) -> np.ndarray:
    """One column as an array, as `columns_of`."""
    if _is_tensor(column.type) and column.null_count:
        there = column.is_valid().to_numpy()
        values = numpy_of(column.drop_null())
        dtype = values.dtype if values.dtype.kind == "f" else np.float64
        filled = np.full((len(there), *values.shape[1:]), np.nan, dtype)
        filled[there] = values
        return filled
    if _is_tensor(column.type):
        chunks = [chunk.to_numpy_ndarray() for chunk in column.chunks if len(chunk)]
        if not chunks:
            return np.empty((0, *column.type.shape), column.type.value_type.to_pandas_dtype())
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    if column.num_chunks == 1:
        return column.chunk(0).to_numpy(zero_copy_only=False)
    return column.to_numpy()


def batch_in(table: pa.Table, batch_format: str) -> Any:
    """The table in one of `BATCH_FORMATS`: columns by name, as it is, or a list of rows."""
    if batch_format == "numpy":
        return columns_of(table)
    return table if batch_format == "pyarrow" else list(rows_of(table))


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """The tables one after the other. Columns that one lacks are null there, and numbers are widened.

    Raises:
        InputError: a column has types that do not go together.
    """
    parts = list(tables)
    if len(parts) <= 1:
        return parts[0] if parts else pa.table({})
    filled = [part for part in parts if part.num_rows] or parts[:1]
    if all(part.schema == filled[0].schema for part in filled):
        return pa.concat_tables(filled)
    try:
        return pa.concat_tables(filled, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"blocks whose columns do not go together: {error}") from error


def require_columns(stage: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raise InputError, which names the stage, for the first name of no column."""
    for name in names:
        if name not in known:
            raise InputError(f"{stage}: there is no column {name!r}. {nearest(name, known)}")


def compact(table: pa.Table) -> pa.Table:
    """The same rows in memory of their own size: one chunk per column, and nothing of what they were cut from."""
    if table.num_rows == 0:
        return table.schema.empty_table()
    table = table.combine_chunks()
    # A slice would take all of the buffers that it lies in along into the object store.
    if table.get_total_buffer_size() > 1.1 * table.nbytes + 1024:
        return table.take(pa.array(np.arange(table.num_rows)))
    return table


def _is_tensor(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.FixedShapeTensorType)
