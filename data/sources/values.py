"""Rows that an object with a length and an index gives, such as a torch dataset, or that are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ..blocks import joined, table_of_rows
from ..errors import BadRows
from .source import Piece


@dataclass(frozen=True)
class IndexedSource:
    """What `rows[i]` gives for i = 0 … len(rows) − 1.

    Args:
        rows: has a length and an index; travels to the workers.
        step: rows of a piece.
        name: what errors call it.
        columns: what the parts of a row that is a tuple are called; none: "item", or "0", "1" ….
    """

    rows: Any = field(repr=False)
    step: int
    name: str
    columns: tuple[str, ...] = ()

    def pieces(self) -> tuple[Piece, ...]:
        """Ranges of indices."""
        count = len(self.rows)
        return tuple(
            Piece(self.name, (start, stop), f"items {start} to {stop - 1}", stop - start)
            for start, stop in ((at, min(at + self.step, count)) for at in range(0, count, self.step))
        )

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """The rows as one table; one that raises is a bad row."""
        start, stop = piece.place
        made = []
        for index in range(start, stop):
            try:
                made.append(self._row(self.rows[index]))
            except Exception as error:
                if not bad.skip:
                    error.add_note(f"in {self.name}, item {index}")
                    raise
                bad.add(f"item {index}", repr(error))
        yield table_of_rows(made)

    def _row(self, row: Any) -> Any:
        if not isinstance(row, tuple | list) or (isinstance(row, list) and not self.columns):
            return {self.columns[0]: row} if self.columns and not isinstance(row, Mapping) else row
        names = self.columns or tuple(map(str, range(len(row))))
        if len(names) != len(row):
            raise ValueError(f"a row has {len(row)} parts; columns are {', '.join(names)}")
        return dict(zip(names, row, strict=True))


@dataclass(frozen=True)
class TableSource:
    """Rows of tables in memory, which workers see without a copy: a list of rows would be made anew for each piece.

    Args:
        tables: of one schema each.
        step: rows of a piece, as long as its table has them.
        name: what errors call it.
    """

    tables: tuple[pa.Table, ...] = field(repr=False)
    step: int
    name: str

    @property
    def schema(self) -> pa.Schema | None:
        """The columns, where all tables have the same."""
        schemas = {table.schema for table in self.tables}
        return schemas.pop() if len(schemas) == 1 else None

    def pieces(self) -> tuple[Piece, ...]:
        """Ranges of rows; `place` is the number of a table, and the range in it."""
        made, first = [], 0
        for number, table in enumerate(self.tables):
            for start in range(0, table.num_rows, self.step):
                rows = min(self.step, table.num_rows - start)
                where = f"items {first} to {first + rows - 1}"
                made.append(Piece(self.name, (number, start, start + rows), where, rows))
                first += rows
        return tuple(made)

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """The rows as one table."""
        number, start, stop = piece.place
        yield self.tables[number].slice(start, stop - start)


def read_now(source: IndexedSource) -> TableSource:
    """What a source gives, read in this process. Raises what its rows raise."""
    runs: list[list[pa.Table]] = []
    for piece in source.pieces():
        table = joined(source.read(piece, BadRows(piece.path)))
        if not runs or table.schema != runs[-1][0].schema:
            runs.append([])
        runs[-1].append(table)
    return TableSource(tuple(joined(run).combine_chunks() for run in runs), source.step, source.name)
