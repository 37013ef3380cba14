"""Parquet files: a row group is a piece, since nothing smaller can be read by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ...runtime import InputError, nearest
from ..errors import BadRows
from .source import Piece

# A column's pages pass through a buffer of this size: without it the whole compressed chunk lies in memory beside what
# it is decoded to.
_BUFFER = 1 << 20


@dataclass(frozen=True)
class ParquetSource:
    """Row groups of Parquet files, in the order of the files.

    Args:
        files: their paths.
        columns: which columns to read, in this order; None: all.
    """

    files: tuple[str, ...]
    columns: tuple[str, ...] | None = None

    def pieces(self) -> tuple[Piece, ...]:
        """One for each row group that has rows, with rows and decoded bytes from the footers."""
        return tuple(piece for file in self.files for piece in self._row_groups(file))

    def _row_groups(self, path: str) -> Iterator[Piece]:
        try:
            with pq.ParquetFile(path) as file:
                metadata, names = file.metadata, file.schema_arrow.names
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is no Parquet file that can be read: {error}") from error
        for column in self.columns or ():
            if column not in names:
                raise InputError(f"{path} has no column {column!r}. {nearest(column, names)}")
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            chunks = [group.column(number) for number in range(group.num_columns)]
            wanted = [c for c in chunks if self.columns is None or c.path_in_schema.split(".")[0] in self.columns]
            size = sum(chunk.total_uncompressed_size for chunk in wanted)
            if group.num_rows:
                yield Piece(path, (index,), f"row group {index}", group.num_rows, size)

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """The row group as one table; a damaged one is one error, which names the column that is damaged."""
        columns = None if self.columns is None else list(self.columns)
        try:
            with pq.ParquetFile(piece.path, buffer_size=_BUFFER, pre_buffer=False) as file:
                yield file.read_row_group(piece.place[0], columns=columns, use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            bad.add(piece.where, f"it cannot be read: {error}", self._damaged(piece), n=piece.rows or 1)

    def _damaged(self, piece: Piece) -> str | None:
        """The first column of the row group that cannot be read by itself."""
        try:
            with pq.ParquetFile(piece.path, pre_buffer=False) as file:
                for name in self.columns or file.schema_arrow.names:
                    try:
                        file.read_row_group(piece.place[0], columns=[name], use_threads=False)
                    except (pa.ArrowException, OSError, ValueError):
                        return name
        except (pa.ArrowException, OSError):
            return None
        return None
