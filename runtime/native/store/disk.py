"""Where objects go that memory has no room for: an arena like the others, in a file without a name.

The file is unlinked as soon as it is open, and the node holds its descriptor as it holds those of shared memory. So
readers find blocks in it in the same way, blocks are reused under the same rules, the kernel's page cache is the memory
that they are read through, and no death of whatever processes leaves a file behind.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from ..protocol.messages import Span
from .arena import CHUNK, HEADER, Arena
from .board import Board

_MOST_BYTES = 1 << 42


def open_unnamed(directory: str) -> int:
    """Return the descriptor of a new file in a directory, which no name leads to.

    Raises:
        OSError: the directory is missing or cannot be written.
    """
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # there are file systems that cannot
        fd, path = tempfile.mkstemp(prefix="shoal-", dir=directory)
        os.unlink(path)
        return fd


def prepare(fd: int) -> None:
    """Give the file the virtual size that an arena needs: as large as the disk."""
    space = os.fstatvfs(fd)
    os.ftruncate(fd, min(space.f_blocks * space.f_frsize, _MOST_BYTES) & -CHUNK)


class DiskArena(Arena):
    """Blocks on disk, as many as the disk has room for; arguments as for `Arena`, which it keeps a copy of `fd` for."""

    def __init__(self, process: bytes, number: int, fd: int, board: Board) -> None:
        super().__init__(process, number, fd, board, self.grant)
        self._fd = os.dup(fd)

    def _touch(self, start: int, end: int, missing: int) -> None:
        # Writing to a mapped file on a full disk would kill the process; here it is an error that says so.
        os.posix_fallocate(self._fd, start, end - start)
        super()._touch(start, end, missing)

    def _remove(self, start: int, size: int) -> None:
        # A file system that cannot make holes keeps the space until the file is closed; it is used again all the same.
        with contextlib.suppress(OSError):
            super()._remove(start, size)

    def write(self, parts: Sequence[Any], owner: bytes) -> Span:
        """Return a new sealed block with this content.

        Raises:
            OSError: the disk is full, or fails.
        """
        span = self.allocate(sum(map(len, parts)), owner)
        at = span.offset + HEADER
        for part in parts:
            rest = memoryview(part)
            while rest:
                written = os.pwrite(self._fd, rest, at)
                at, rest = at + written, rest[written:]
        self.seal(span, owner)
        return span

    def close(self) -> None:
        """Close the descriptor; views stay valid."""
        os.close(self._fd)
