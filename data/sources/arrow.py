"""Arrow IPC files, which are mapped into memory, and streams."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.ipc

from ...runtime import InputError
from ..errors import BadRows
from .source import Piece

SUFFIXES = (".arrow", ".arrows", ".feather", ".ipc")
_MAGIC = b"ARROW1"
_DAMAGED = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class ArrowSource:
    """Record batches in the order of the files; each is checked before it is used, since damaged offsets would have us
    read memory that is not ours.

    Args:
        files: their paths.
    """

    files: tuple[str, ...]

    def pieces(self) -> tuple[Piece, ...]:
        """A record batch of a file each, with its rows; a stream as a whole."""
        return tuple(piece for path in self.files for piece in self._batches(path))

    def _batches(self, path: str) -> Iterator[Piece]:
        with open(path, "rb") as file:
            is_file = file.read(len(_MAGIC)) == _MAGIC
        if not is_file:
            yield Piece(path, bytes=os.path.getsize(path))
            return
        try:
            with pa.memory_map(path) as mapped:
                # Without columns there is nothing to decode: what is left of a batch is the number of its rows.
                lengths = pa.ipc.IpcReadOptions(included_fields=[])
                batches = pa.ipc.open_file(mapped, options=lengths)
                rows = [batches.get_batch(index).num_rows for index in range(batches.num_record_batches)]
        except _DAMAGED as error:
            raise InputError(f"{path} is no Arrow file that can be read: {error}") from error
        size = os.path.getsize(path) // max(1, sum(rows))
        for index, count in enumerate(rows):
            if count:
                yield Piece(path, (index,), f"record batch {index}", count, size * count)

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """As `Source.read`; a damaged batch is one error."""
        if piece.place:
            try:
                with pa.memory_map(piece.path) as mapped:
                    yield _checked(pa.ipc.open_file(mapped).get_batch(piece.place[0]))
            except _DAMAGED as error:
                bad.add(piece.where, f"it cannot be read: {error}", n=piece.rows or 1)
            return
        yield from _stream(piece.path, bad)


def _stream(path: str, bad: BadRows) -> Iterator[pa.Table]:
    index = 0
    try:
        stream = pa.ipc.open_stream(pa.memory_map(path))
    except _DAMAGED as error:
        bad.add("", f"it is no Arrow file or stream: {error}")
        return
    while True:
        try:
            batch = stream.read_next_batch()
        except StopIteration:
            return
        except _DAMAGED as error:
            bad.add(f"record batch {index}", f"it cannot be read, and nothing after it: {error}")
            return
        try:
            table = _checked(batch)
        except _DAMAGED as error:
            bad.add(f"record batch {index}", f"it cannot be read: {error}", n=batch.num_rows)
        else:
            yield table
        index += 1


def _checked(batch: pa.RecordBatch) -> pa.Table:
    batch.validate(full=True)
    return pa.Table.from_batches([batch])
