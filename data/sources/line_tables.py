"""Files with a row a line, parsed in chunks of lines; where one of them is bad, that one is found by halving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import pyarrow as pa

from ..errors import BadRows
from .cutting import telling_damage
from .lines import line_number, read_lines
from .source import Piece


class LineError(ValueError):
    """A line is no row: the column, if it is one that is bad, and what is wrong."""

    def __init__(self, reason: str, column: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.column = reason, column


class LineParser(Protocol):
    """What makes rows of lines."""

    def parse(self, lines: bytes) -> pa.Table:
        """A table of whole lines. Raises pa.ArrowException or ValueError if one of them is bad."""
        ...

    def explain(self, line: bytes, error: Exception) -> LineError:
        """What is wrong with one line, for which `parse` has raised `error`."""
        ...


def tables_of_lines(piece: Piece, bad: BadRows, parser: LineParser, skip_first: bool = False) -> Iterator[pa.Table]:
    """Yield the tables of the lines of a piece; `skip_first` leaves out the first line of the file, a header."""
    with telling_damage(bad):
        for start, chunk in read_lines(piece):
            header = chunk.find(b"\n") + 1 or len(chunk) if skip_first and start == 0 else 0
            yield from _parsed(piece, bad, parser, start + header, chunk[header:])


def _parsed(piece: Piece, bad: BadRows, parser: LineParser, start: int, chunk: bytes) -> Iterator[pa.Table]:
    if not chunk:
        return
    try:
        table = parser.parse(chunk)
        table.validate(full=True)  # texts may be no UTF-8
    except (pa.ArrowException, ValueError) as error:
        middle = _middle(chunk)
        if middle:
            yield from _parsed(piece, bad, parser, start, chunk[:middle])
            yield from _parsed(piece, bad, parser, start + middle, chunk[middle:])
            return
        found = parser.explain(chunk, error)
        bad.add(f"line {line_number(piece, start)}", found.reason, found.column, chunk)
    else:
        yield table


def schema_of_lines(chunk: bytes, parse: Callable[[bytes], pa.Table]) -> pa.Schema:
    """The columns that `parse` tells from lines, whole numbers widened where others follow; texts where all is null.

    Lines that it cannot parse, or that do not fit to those before, have no part in it: who reads them will say so.
    Raises pa.ArrowException or ValueError where it can parse none.
    """
    found: pa.Schema | None = None
    for schema in _schemas(chunk, parse):
        try:
            found = schema if found is None else pa.unify_schemas([found, schema], promote_options="permissive")
        except pa.ArrowException:
            continue
    if found is None:
        found = parse(chunk).schema
    return _without_nulls(found)


def _schemas(chunk: bytes, parse: Callable[[bytes], pa.Table]) -> Iterator[pa.Schema]:
    try:
        yield parse(chunk).schema
    except (pa.ArrowException, ValueError):
        middle = _middle(chunk)
        if middle:
            yield from _schemas(chunk[:middle], parse)
            yield from _schemas(chunk[middle:], parse)


def _middle(chunk: bytes) -> int:
    """Where a line begins near the middle of a chunk; 0 if it has one line only."""
    middle = chunk.rfind(b"\n", 0, len(chunk) // 2) + 1 or chunk.find(b"\n") + 1
    return middle if middle < len(chunk) else 0


def _without_nulls(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema])
