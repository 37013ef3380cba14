"""TFRecord files of tf.train.Example, or of anything else as bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...runtime import InputError
from ..errors import BadRows
from .cutting import DAMAGED, cut, groups, open_file, open_piece
from .samples import SAMPLED, MisfitError, Sample, table_of_samples
from .source import Piece
from .tfrecord_format import DamagedRecord, decode_example, read_records, scan_records

SUFFIXES = tuple(f".{name}{end}" for name in ("tfrecord", "tfrecords") for end in ("", ".gz"))
_TYPES = {"int64": pa.int64(), "float": pa.float32(), "bytes": pa.binary()}


@dataclass(frozen=True)
class TFRecordSource:
    """Records in the order of the files; each record's checksums are compared.

    Args:
        files: their paths.
        schema: a column per feature; None: one column, `bytes`, with the records as they are.
    """

    files: tuple[str, ...]
    schema: pa.Schema | None

    def pieces(self) -> tuple[Piece, ...]:
        """A file each; large ones that are not compressed in several."""
        return tuple(piece for file in self.files for piece in cut(file, scan_records))

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """As `Source.read`; after a damaged length the rest of the piece counts as one bad row."""
        for samples in groups(self._samples(piece, bad), lambda sample: len(sample.raw)):
            if self.schema is None:
                yield pa.table({"bytes": pa.array([sample.raw for sample in samples], pa.binary())})
                continue
            table, misfits = table_of_samples(samples, self.schema)
            for sample, error in misfits:
                bad.add(sample.where, f"{error.reason}; say its type with schema=", error.column, sample.raw)
            yield table

    def _samples(self, piece: Piece, bad: BadRows) -> Iterator[Sample]:
        number, start, stop = piece.place
        with open_piece(piece, bad) as file:
            for record in read_records(file, number=number, offset=start, stop=stop):
                if isinstance(record, DamagedRecord):
                    bad.add(_where(record.number, record.offset), record.reason, raw=record.data)
                    continue
                where, data = _where(*record[:2]), record[2]
                try:
                    yield Sample(where, {} if self.schema is None else self._values(decode_example(data)), data)
                except MisfitError as error:
                    bad.add(where, f"{error.reason}; say its type with schema=", error.column, data)
                except ValueError as error:
                    bad.add(where, str(error), raw=data)

    def _values(self, features: dict[str, tuple[str, list[Any]]]) -> dict[str, Any]:
        assert self.schema is not None
        found: dict[str, Any] = {}
        for name, (kind, values) in features.items():
            index = self.schema.get_field_index(name)
            if index < 0:
                raise MisfitError(name, f"there is no such column: those before have {', '.join(self.schema.names)}")
            found[name] = _value(name, kind, values, self.schema.field(index).type)
        return found


def _where(number: int, offset: int) -> str:
    return f"record {number} at byte {offset}"


def _value(name: str, kind: str, values: list[Any], wanted: pa.DataType) -> Any:
    if pa.types.is_string(wanted) or pa.types.is_large_string(wanted):
        values = [value.decode() for value in values]
    if isinstance(wanted, pa.FixedShapeTensorType):
        dtype = wanted.value_type.to_pandas_dtype()
        array = np.frombuffer(values[0], dtype) if kind == "bytes" and len(values) == 1 else np.array(values, dtype)
        if array.size != np.prod(wanted.shape, dtype=int):
            raise MisfitError(name, f"it has {array.size} numbers; wanted {list(wanted.shape)}")
        return array.reshape(wanted.shape)
    if pa.types.is_nested(wanted):
        return values
    if len(values) != 1:
        raise MisfitError(name, f"it has {len(values)} values of {kind}; wanted 1, a {wanted}, as in the rows before")
    return values[0]


def infer_schema(files: Sequence[str]) -> pa.Schema:
    """The columns of the features of the first 100 records: a number, or bytes, where each has one; else a list.

    Raises:
        InputError: there is no sound record of tf.train.Example among them, or a feature is of two kinds.
    """
    kinds: dict[str, str] = {}
    several: set[str] = set()
    found = False
    for features in itertools.islice(_first_examples(files), SAMPLED):
        found = True
        for name, (kind, values) in features.items():
            if kinds.setdefault(name, kind) != kind:
                raise InputError(f"{files[0]}: feature {name!r} is now {kinds[name]}, now {kind}: choose with schema=")
            if len(values) != 1:
                several.add(name)
    if not found:
        raise InputError(f"{files[0]} holds no tf.train.Example that can be read; for other records say raw=True")
    types = {name: pa.list_(_TYPES[kind]) if name in several else _TYPES[kind] for name, kind in sorted(kinds.items())}
    return pa.schema(types.items())


def _first_examples(files: Sequence[str]) -> Iterator[dict[str, tuple[str, list[Any]]]]:
    for path in files:
        try:
            with open_file(path) as file:
                for record in read_records(file):
                    if not isinstance(record, DamagedRecord):
                        yield decode_example(record[2])
        except DAMAGED:
            continue  # who reads it will say so
