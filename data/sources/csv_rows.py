"""CSV files whose first line names the columns."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.csv

from ...runtime import InputError, nearest
from ..errors import BadRows
from .cutting import COMPRESSED, DAMAGED, open_file
from .line_tables import LineError, schema_of_lines, tables_of_lines
from .lines import cut_lines, read_lines
from .source import Piece

SUFFIXES = tuple(f".{name}{end}" for name in ("csv", "tsv") for end in ("", *COMPRESSED))
_BAD_COLUMN = re.compile(r"In CSV column #(\d+): (?:Row #\d+: )?")
_BAD_COUNT = re.compile(r"Expected (\d+) columns, got (\d+)")


@dataclass(frozen=True)
class CsvSource:
    """Rows in the order of the files.

    Args:
        files: their paths.
        schema: the columns to read; each file must have them all, in any order.
        delimiter: between cells.
        newlines_in_values: cells in quotes may hold line ends; files are read as a whole then.
    """

    files: tuple[str, ...]
    schema: pa.Schema
    delimiter: str = ","
    newlines_in_values: bool = False

    def pieces(self) -> tuple[Piece, ...]:
        """Ranges of 2 MB; a compressed file, or one with line ends in cells, as a whole."""
        if self.newlines_in_values:
            return tuple(Piece(file) for file in self.files)
        return tuple(piece for file in self.files for piece in cut_lines(file))

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """As `Source.read`; a line with other cells than columns, or with a cell that is none, is a bad row."""
        try:
            names = header_of(piece.path, self.delimiter)
            lacking = next((name for name in self.schema.names if name not in names), None)
        except DAMAGED as error:
            bad.add("line 1", f"it names no columns: {error}")
            return
        if lacking is not None:
            bad.add("line 1", f"there is no such column. {nearest(lacking, names)}", lacking)
            return
        parser = _Rows(self.schema, tuple(names), self.delimiter)
        if not self.newlines_in_values:
            yield from tables_of_lines(piece, bad, parser, skip_first=True)
            return
        try:
            with open_file(piece.path) as file:
                yield replace(parser, newlines=True).parse(file.read().partition(b"\n")[2])
        except (pa.ArrowException, *DAMAGED) as error:
            bad.add("", str(error))


@dataclass(frozen=True)
class _Rows:
    """The parser of one file; its columns stand in an order of their own."""

    schema: pa.Schema | None
    names: tuple[str, ...]
    delimiter: str
    newlines: bool = False

    def parse(self, lines: bytes) -> pa.Table:
        """As `LineParser.parse`."""
        if not lines.strip(b"\r\n"):
            return pa.table({}) if self.schema is None else self.schema.empty_table()
        table = pa.csv.read_csv(
            io.BytesIO(lines),
            read_options=pa.csv.ReadOptions(
                use_threads=False, block_size=len(lines) + 1, column_names=list(self.names)
            ),
            parse_options=pa.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=self.newlines),
            convert_options=pa.csv.ConvertOptions(
                column_types=self.schema, include_columns=None if self.schema is None else self.schema.names
            ),
        )
        # Within a chunk pyarrow takes line ends in quotes for part of the cell, at its end it does not.
        if not self.newlines and b'"' in lines and (lines.count(b'"') % 2 or table.num_rows != _count(lines)):
            raise ValueError(
                "a quote is not closed in its line; where cells hold line ends, say newlines_in_values=True"
            )
        return table

    def explain(self, line: bytes, error: Exception) -> LineError:
        """As `LineParser.explain`."""
        reason = str(error)
        if found := _BAD_COUNT.search(reason):
            return LineError(f"it has {found[2]} cells, wanted {found[1]}")
        if found := _BAD_COLUMN.search(reason):
            name = self.names[int(found[1])] if self.schema is None else self.schema.names[int(found[1])]
            return LineError(f"{reason[found.end() :]}, or say its type with schema=", name)
        return LineError(reason)


def _count(lines: bytes) -> int:
    """How many lines are not empty."""
    return len(list(filter(None, lines.replace(b"\r", b"").split(b"\n"))))


def header_of(path: str, delimiter: str) -> list[str]:
    """The names in the first line of a file. Raises ValueError if it has none, or one twice."""
    with open_file(path) as file:
        line = file.readline()
    try:
        table = pa.csv.read_csv(io.BytesIO(line), parse_options=pa.csv.ParseOptions(delimiter=delimiter))
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    names: list[str] = table.column_names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"it names the column {twice!r} twice")
    return names


def text_schema(files: Sequence[str], delimiter: str) -> pa.Schema:
    """The columns of the first file, all of them texts. InputError if it names none."""
    try:
        return pa.schema([(name, pa.string()) for name in header_of(files[0], delimiter)])
    except DAMAGED as error:
        raise InputError(f"{files[0]}: its first line names no columns: {error}") from error


def infer_schema(files: Sequence[str], delimiter: str, *, newlines_in_values: bool = False) -> pa.Schema:
    """The columns of the first file, with the types of its first megabyte.

    Raises:
        InputError: it names no columns, or its rows do not fit together.
    """
    path = files[0]
    try:
        names = header_of(path, delimiter)
        _, chunk = next(read_lines(next(cut_lines(path))))
        rows = _Rows(None, tuple(names), delimiter, newlines_in_values)
        schema = schema_of_lines(chunk.partition(b"\n")[2], rows.parse)
    except (pa.ArrowException, StopIteration, *DAMAGED) as error:
        raise InputError(
            f"{path}: the columns cannot be told from its first lines: {error}; say them with schema="
        ) from error
    return schema if len(schema) else pa.schema([(name, pa.string()) for name in names])
