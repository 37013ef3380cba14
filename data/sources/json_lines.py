"""JSON Lines files: an object a line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.json

from ...runtime import InputError, nearest
from ..errors import BadRows
from .cutting import COMPRESSED, DAMAGED
from .line_tables import LineError, schema_of_lines, tables_of_lines
from .lines import cut_lines, read_lines
from .source import Piece

SUFFIXES = tuple(f".{name}{end}" for name in ("jsonl", "json", "ndjson") for end in ("", *COMPRESSED))


@dataclass(frozen=True)
class JsonSource:
    """Objects in the order of the files.

    Args:
        files: their paths.
        schema: the columns. A key that is not among them makes a row a bad one; one that is lacking is null.
    """

    files: tuple[str, ...]
    schema: pa.Schema

    def pieces(self) -> tuple[Piece, ...]:
        """Ranges of 2 MB; a compressed file as a whole."""
        return tuple(piece for file in self.files for piece in cut_lines(file))

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """As `Source.read`; a line that is no object with these columns is a bad row."""
        return tables_of_lines(piece, bad, self)

    def parse(self, lines: bytes) -> pa.Table:
        """As `LineParser.parse`."""
        return _parse(lines, self.schema)

    def explain(self, line: bytes, error: Exception) -> LineError:
        """As `LineParser.explain`."""
        try:
            row = json.loads(line)
        except ValueError as wrong:
            return LineError(f"it is no JSON: {wrong}")
        if not isinstance(row, dict):
            return LineError(f"it is {type(row).__name__}, wanted an object")
        for name, value in row.items():
            if name not in self.schema.names:
                known = nearest(name, self.schema.names)
                return LineError(f"there is no such column in the first rows. {known} Say all with schema=", name)
            wanted = self.schema.field(name)
            try:
                _parse(json.dumps({name: value}).encode(), pa.schema([wanted]))
            except (pa.ArrowException, ValueError):
                return LineError(f"it is {value!r:.60}, wanted {wanted.type}, or say its type with schema=", name)
        return LineError(str(error))


def _parse(lines: bytes, schema: pa.Schema | None) -> pa.Table:
    table = pa.json.read_json(
        io.BytesIO(lines),
        read_options=pa.json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=pa.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "error"
        ),
    )
    return table if schema is None else table.select(schema.names)


def infer_schema(files: Sequence[str]) -> pa.Schema:
    """The columns of the first megabyte of the first file that has lines.

    Raises:
        InputError: there is none, or its lines do not fit together.
    """
    for path in files:
        try:
            _, chunk = next(read_lines(next(cut_lines(path))))
            return schema_of_lines(chunk, lambda lines: _parse(lines, None))
        except StopIteration:
            continue
        except (pa.ArrowException, *DAMAGED) as error:
            raise InputError(
                f"{path}: an object a line is wanted, but the columns cannot be told from the first ones: {error}; say "
                "them with schema="
            ) from error
    raise InputError(f"there is no line in {', '.join(map(str, files[:3]))}: nothing to read")
