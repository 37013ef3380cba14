"""Cutting files into pieces at places where a record begins, and opening compressed ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from ..errors import BadRows, DataError
from .source import Piece

WHOLE = 16 << 20
"""Bytes up to which a file is one piece: to find records in it would take longer than it spares."""
PIECE = 8 << 20
"""Bytes of a piece of a larger file."""
TABLE = 4 << 20
"""Bytes of the tables that a piece is read as."""


class _Forward(io.RawIOBase):
    """A stream of pyarrow's as Python knows files, which can be moved forward."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._at = stream, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        wanted = offset if whence == os.SEEK_SET else self._at + offset
        if whence == os.SEEK_END or wanted < self._at:
            raise io.UnsupportedOperation("a compressed file is read forward only")
        while self._at < wanted and (data := self._stream.read(min(wanted - self._at, 1 << 20))):
            self._at += len(data)
        return self._at

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open_zstd(path: str) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Forward(pa.input_stream(path, compression="zstd")), 1 << 20))


_OPENERS: dict[str, Callable[[str], Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
COMPRESSED = tuple(_OPENERS)
DAMAGED = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)
"""What reading files raises where they are damaged, compressed ones also."""


def open_file(path: str) -> BinaryIO:
    """Open a file to read its bytes, decompressed as its name says."""
    opener = _OPENERS.get(Path(path).suffix.lower())
    return cast(BinaryIO, open(path, "rb") if opener is None else opener(path))


@contextmanager
def telling_damage(bad: BadRows) -> Iterator[None]:
    """What cannot be read on within the block is one bad row: a `DataError`, or left out with all that follows."""
    try:
        yield
    except DataError:
        raise
    except DAMAGED as error:
        bad.add("", f"it cannot be read on: {error}")


@contextmanager
def open_piece(piece: Piece, bad: BadRows) -> Iterator[BinaryIO]:
    """The file of a piece that `cut` has made, at its first byte; damage as `telling_damage`."""
    with telling_damage(bad), open_file(piece.path) as file:
        start = piece.place[1]
        if start:  # not all that is compressed can be moved
            file.seek(start)
        yield file


def cut(path: str, scan: Callable[[BinaryIO], Iterable[int]]) -> Iterator[Piece]:
    """A file as one piece, or as several if it is large and not compressed; `scan` yields where its records begin.

    `place` is (number of the first record, first byte, byte after the last), the last None for all that follows.
    """
    size, compressed = os.path.getsize(path), path.lower().endswith(COMPRESSED)
    if compressed or size <= WHOLE:
        yield Piece(path, (0, 0, None), bytes=None if compressed else size)
        return
    with open(path, "rb") as file:
        first = start = 0
        for number, offset in enumerate(scan(file)):
            if offset - start >= PIECE:
                yield Piece(path, (first, start, offset), f"bytes {start} to {offset}", number - first, offset - start)
                first, start = number, offset
    yield Piece(path, (first, start, None), f"bytes {start} to {size}", None, size - start)


def groups(items: Iterable[Any], size: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Items in lists of about `TABLE` bytes."""
    held, total = [], 0
    for item in items:
        held.append(item)
        total += size(item)
        if total >= TABLE:
            yield held
            held, total = [], 0
    if held:
        yield held
