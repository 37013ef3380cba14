"""What a part of a dataset is written as: each format puts one table into one open file, the same bytes each time."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ...runtime import InputError
from ..blocks import numpy_of, rows_of
from ..sources.image_format import SUFFIXES as IMAGE_SUFFIXES
from ..sources.image_format import encode_image
from ..sources.tar_format import KEY
from ..sources.tfrecord_format import encode_example, framed


class Format(Protocol):
    """One table in one file."""

    suffix: ClassVar[str]
    """Of the files' names, without the dot."""

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """Write a table. Raises InputError, which names the column, for what the format cannot hold."""
        ...


@dataclass(frozen=True)
class Parquet:
    """Parquet; tensors keep their shapes."""

    compression: str = "snappy"
    row_group_size: int | None = None
    """Rows; None is one group a file."""
    suffix: ClassVar[str] = "parquet"

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """As `Format.write`."""
        rows = self.row_group_size or max(table.num_rows, 1)
        pa.parquet.write_table(table, file, compression=self.compression, row_group_size=rows)


@dataclass(frozen=True)
class Arrow:
    """An Arrow IPC file, a record batch of all rows: what readers map into memory as it is."""

    suffix: ClassVar[str] = "arrow"

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """As `Format.write`."""
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table.combine_chunks())


@dataclass(frozen=True)
class Csv:
    """CSV with a header."""

    suffix: ClassVar[str] = "csv"

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """As `Format.write`."""
        for field in table.schema:
            if pa.types.is_nested(field.type) or isinstance(field.type, pa.BaseExtensionType):
                raise InputError(
                    f"column {field.name!r} is {field.type}, which a cell of CSV cannot hold: drop it first"
                )
        pa.csv.write_csv(table, file)


@dataclass(frozen=True)
class Json:
    """One JSON object a line; tensors as nested lists, dates in ISO 8601."""

    suffix: ClassVar[str] = "jsonl"

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """As `Format.write`."""
        for row in rows_of(table):
            try:
                text = json.dumps(row, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_json_value)
            except (TypeError, ValueError) as error:
                raise InputError(f"column {_column_at_fault(row)!r} cannot be written as JSON: {error}") from error
            file.write(text.encode() + b"\n")


@dataclass(frozen=True)
class Numpy:
    """One column as .npy."""

    column: str
    suffix: ClassVar[str] = "npy"

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """As `Format.write`."""
        np.lib.format.write_array(file, np.ascontiguousarray(_array(table, self.column)), allow_pickle=False)


@dataclass(frozen=True)
class Npz:
    """All columns as .npz."""

    suffix: ClassVar[str] = "npz"

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """As `Format.write`."""
        columns: dict[str, Any] = {name: _array(table, name) for name in table.column_names}
        np.savez(file, **columns)


@dataclass(frozen=True)
class WebDataset:
    """A tar in WebDataset's layout: a file a row and column, named by `__key__` and the column."""

    suffix: ClassVar[str] = "tar"

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """As `Format.write`."""
        if KEY not in table.column_names:
            raise InputError(f"WebDataset names samples by the column {KEY!r}, which is not there: add it with map")
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for row in rows_of(table):
                key = row.pop(KEY)
                for name, value in row.items():
                    if value is not None:
                        content = _tar_content(name, value)
                        header = tarfile.TarInfo(f"{key}.{name}")  # its defaults hold no user and no time
                        header.size = len(content)
                        tar.addfile(header, io.BytesIO(content))


@dataclass(frozen=True)
class TFRecord:
    """TFRecord of tf.train.Example: whole numbers as int64, others as float, text and bytes as bytes; tensors flat."""

    suffix: ClassVar[str] = "tfrecord"

    def write(self, table: pa.Table, file: BinaryIO) -> None:
        """As `Format.write`."""
        kinds = {field.name: _feature_kind(field) for field in table.schema}
        for row in rows_of(table):
            features = {name: (kinds[name], _values(value)) for name, value in row.items() if value is not None}
            file.write(framed(encode_example(features)))


def _array(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        raise InputError(f"there is no column {name!r}; the columns are {', '.join(table.column_names)}")
    array = numpy_of(table[name])
    if array.dtype == object and pa.types.is_string(table.schema.field(name).type):
        array = array.astype(np.str_)
    if array.dtype == object:
        raise InputError(
            f"column {name!r} is {table.schema.field(name).type}, which is no array of one shape and dtype"
        )
    return array


def _json_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"no JSON for {type(value).__name__}")


def _column_at_fault(row: Mapping[str, Any]) -> str:
    for name, value in row.items():
        try:
            json.dumps(value, allow_nan=False, default=_json_value)
        except (TypeError, ValueError):
            return name
    return ", ".join(row)


def _tar_content(name: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray) and name.rpartition(".")[2] in IMAGE_SUFFIXES:
        return encode_image(value, name.rpartition(".")[2])
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.lib.format.write_array(file, value, allow_pickle=False)
        return file.getvalue()
    if isinstance(value, str) and not name.endswith("json"):
        return value.encode()
    return json.dumps(value, allow_nan=False, default=_json_value).encode()


def _feature_kind(field: pa.Field) -> str:
    kind = field.type
    while isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "int64"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        return "bytes"
    raise InputError(f"column {field.name!r} is {field.type}, which tf.train.Example cannot hold")


def _values(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return value.reshape(-1).tolist()
    items = value if isinstance(value, list) else [value]
    flat = [inner for item in items for inner in (item if isinstance(item, list) else [item])]
    return [item.encode() if isinstance(item, str) else item for item in flat]
