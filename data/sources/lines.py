"""Lines of text files, cut into ranges of bytes that can be read by themselves.

A line belongs to the range in which its first byte lies, so whoever reads a range skips what is left of the line before
it, and reads on to the end of its last one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from .cutting import COMPRESSED, open_file
from .source import Piece

RANGE = 2 << 20
"""Bytes of a piece."""
_CHUNK = 1 << 20


def cut_lines(path: str) -> Iterator[Piece]:
    """A text file in ranges of bytes, its `place`; a compressed one as a whole, with the place ()."""
    size = os.path.getsize(path)
    if path.lower().endswith(COMPRESSED):
        yield Piece(path)
        return
    for start in range(0, size, RANGE):
        stop = min(start + RANGE, size)
        yield Piece(path, (start, stop), f"bytes {start} to {stop}", bytes=stop - start)


def read_lines(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a piece in chunks of whole ones: where each chunk begins in the file, and its bytes.

    Only the last line of a file may lack its end. Raises `cutting.DAMAGED` for damaged files, after the lines before.
    """
    start, stop = piece.place or (0, None)
    with open_file(piece.path) as file:
        if start:
            file.seek(start - 1)
            start += len(file.readline()) - 1
        while stop is None or start < stop:
            chunk = _whole_lines(file, _CHUNK if stop is None else min(_CHUNK, stop - start))
            if not chunk:
                return
            yield start, chunk
            start += len(chunk)


def _whole_lines(file: BinaryIO, size: int) -> bytes:
    """The next `size` bytes, and what is left of the line that the last of them lies in."""
    chunk = file.read(size)
    return chunk if not chunk or chunk.endswith(b"\n") else chunk + file.readline()


def line_number(piece: Piece, offset: int) -> int:
    """The number, from 1 on, of the line that begins at a byte of the (uncompressed) file; for errors, since it reads
    all that comes before."""
    count = 1
    with open_file(piece.path) as file:
        while offset > 0 and (chunk := file.read(min(_CHUNK, offset))):
            count += chunk.count(b"\n")
            offset -= len(chunk)
    return count
