"""Samples (dictionaries of Python values and arrays) as tables of one schema, where a format does not say its types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..blocks import column_of

SAMPLED = 100
"""Rows at the beginning of a source from which the types of its columns follow, where it does not say them."""


@dataclass(frozen=True)
class Sample:
    """One row that was read, and where."""

    where: str
    """Such as "record 3 at byte 912"."""
    values: Mapping[str, Any]
    raw: bytes | None = None
    """As it stood in the file, to be set aside if it turns out to be bad."""


class MisfitError(ValueError):
    """A value is no element of its column: `column`, and what is wrong."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


def schema_of(samples: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """The types of columns that hold these values, columns in the order in which they first appear.

    Arrays [d, …] of one shape and dtype become a fixed-shape tensor. Raises MisfitError where no type holds all values.
    """
    columns: dict[str, list[Any]] = {}
    for sample in samples:
        for name, value in sample.items():
            columns.setdefault(name, []).append(value)
    return pa.schema([pa.field(name, _type_of(name, values)) for name, values in columns.items()])


def table_of_samples(samples: Sequence[Sample], schema: pa.Schema) -> tuple[pa.Table, list[tuple[Sample, MisfitError]]]:
    """The samples as a table of `schema`, and those that do not fit. What a sample lacks is null."""
    try:
        return _table([sample.values for sample in samples], schema), []
    except MisfitError:
        good, bad = [], []
        for sample in samples:
            try:
                _table([sample.values], schema)
                good.append(sample.values)
            except MisfitError as error:
                bad.append((sample, error))
        return _table(good, schema), bad


def _table(samples: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    names = set(schema.names)
    for sample in samples:
        if not names.issuperset(sample):
            unknown = next(name for name in sample if name not in names)
            raise MisfitError(unknown, f"there is no such column: those before have {', '.join(schema.names)}")
    columns = [_column(field, [sample.get(field.name) for sample in samples]) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(field: pa.Field, values: list[Any]) -> pa.Array:
    try:
        if isinstance(field.type, pa.FixedShapeTensorType):
            return _tensors(field, values)
        return pa.array(values, field.type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, MisfitError):
            raise
        raise MisfitError(field.name, f"wanted {field.type}: {error}") from error


def _tensors(field: pa.Field, values: list[Any]) -> pa.Array:
    shape, dtype = tuple(field.type.shape), field.type.value_type.to_pandas_dtype()
    stacked = np.empty((len(values), *shape), dtype)
    for index, value in enumerate(values):
        if value is None:
            raise MisfitError(field.name, "it is missing, and a column of arrays has no nulls")
        array = np.asarray(value)
        if array.shape != shape or not np.can_cast(array.dtype, dtype, "same_kind"):
            found = f"{array.dtype}{list(array.shape)}"
            raise MisfitError(field.name, f"it is {found}, wanted {np.dtype(dtype)}{list(shape)} as in the rows before")
        stacked[index] = array
    return column_of(stacked)


def _type_of(name: str, values: list[Any]) -> pa.DataType:
    arrays = [value for value in values if isinstance(value, np.ndarray) and value.ndim]
    if not arrays:
        try:
            return pa.array(values).type
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise MisfitError(name, f"no type holds the values of the first {len(values)} rows: {error}") from error
    kinds = {(value.shape, value.dtype.str) for value in arrays}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{np.dtype(dtype)}{list(shape)}" for shape, dtype in kinds)[:3])
        raise MisfitError(name, f"arrays of several kinds: {found}; wanted one shape and dtype")
    return pa.fixed_shape_tensor(pa.from_numpy_dtype(arrays[0].dtype), arrays[0].shape)
