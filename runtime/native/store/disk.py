"""Where objects go that memory has no room for: an arena like the others, in a file without a name.

The file is unlinked as soon as it is open, and the node holds its descriptor as it holds those of shared memory. So
readers find blocks in it in the same way, blocks are reused under the same rules, the kernel's page cache is the memory
that they are read through, and no death of whatever processes leaves a file behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from ..protocol.messages import Span
from .arena import HEADER, Arena
from .board import Board
from .budget import CHUNK

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
    """Give the file the virtual size that an arena needs: more than the disk has, since blocks lie scattered."""
    space = os.fstatvfs(fd)
    size = space.f_blocks * space.f_frsize * 4 or _MOST_BYTES  # some file systems do not know how large they are
    os.ftruncate(fd, max(min(size, _MOST_BYTES) & -CHUNK, CHUNK))


class DiskArena(Arena):
    """Blocks on disk, as many as the disk has room for; arguments as for `Arena`, which it keeps a copy of `fd` for."""

    on_disk = True

    def __init__(self, process: bytes, number: int, fd: int, board: Board) -> None:
        super().__init__(process, number, fd, board, _MOST_BYTES, self.grant)
        self.grant(0, _MOST_BYTES)  # so that nothing is ever asked for: the disk says itself when it is full
        self._fd = os.dup(fd)

    def _scattered(self, whole: int) -> Exception:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _touch(self, start: int, end: int, missing: int) -> None:
        # Writing to a mapped file on a full disk would kill the process; here it is an error that says so.
        try:
            os.posix_fallocate(self._fd, start, end - start)
        except OSError:
            self._drop_untouched(start, end)
            raise
        super()._touch(start, end, missing)

    def _drop_untouched(self, start: int, end: int) -> None:
        """Give back what the disk had found room for before it was full."""
        for chunk in range(start // CHUNK, -(-end // CHUNK)):
            if not self._touched[chunk : chunk + 1].count(1) and (chunk + 1) * CHUNK <= len(self.memory):
                self._remove(chunk * CHUNK, CHUNK)

    def _remove(self, start: int, size: int) -> None:
        # A file system that cannot make holes keeps the space until the file is closed; it is used again all the same.
        with contextlib.suppress(OSError):
            super()._remove(start, size)

    def write(self, parts: Sequence[Any], owner: bytes) -> list[Span]:
        """Return new sealed blocks with these contents.

        Raises:
            OSError: the disk is full, or fails.
        """
        spans = self.allocate([len(part) for part in parts], owner)
        try:
            for part, span in zip(parts, spans, strict=True):
                at, rest = span.offset + HEADER, memoryview(part)
                while rest:
                    written = os.pwrite(self._fd, rest, at)
                    at, rest = at + written, rest[written:]
                self.seal(span, owner)
        except OSError:
            self.free(spans)
            self.trim()
            raise
        return spans

    def trim(self) -> int:
        """Give free space back to the disk; the budget stays: there is none."""
        size = super().trim()
        self.grant(0, size)
        return size

    def close(self) -> None:
        """Close the descriptor; views stay valid."""
        os.close(self._fd)
