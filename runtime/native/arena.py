"""Shared memory: one growing arena per making process, and the board on which readers say what they hold.

    maker   allocates blocks in its own arena and writes them; it alone frees and reuses them
    node    holds every arena's descriptor, so that a block outlives its maker, and the board's
    reader  maps an arena whole, once, and takes read-only views; its line on the board names the blocks it views

An arena is a sparse memfd of fixed virtual size: it grows as pages are touched, and is never remapped. Memory that
was used once is used again before fresh memory is: writing into fresh pages costs five times as much. A freed block
is reused only when no living process has it on the board. A reader writes its line while it still holds a reference
to the object, and the owner frees the object only after it was told that the reference is gone, so the line is
always seen in time; no atomic operation is needed.
"""

from __future__ import annotations

import bisect
import mmap
import os
import struct
import threading

from ..exceptions import InternalError, ObjectStoreFullError
from .board import Board
from .messages import Span

HEADER = 64
_ALIGN = 64
_HEADER = struct.Struct("<QQ8sQ")  # state, size, owner, generation
_STATE = struct.Struct("<Q")
UNTOUCHED, FREE = 0, 1
UNSEALED, SEALED = 2, 3  # unsealed: being written, or given back while a reader may still view it


def map_arena(fd: int) -> mmap.mmap:
    """Map the whole of an arena."""
    return mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def arena_capacity() -> int:
    """Return the virtual size of an arena: six tenths of the machine's memory."""
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 0.6) & -mmap.PAGESIZE


class Arena:
    """The blocks that this process makes: best fit, neighbours joined, touched memory first."""

    def __init__(self, process: bytes, number: int, fd: int, board: Board) -> None:
        self.number = number
        self.memory = map_arena(fd)
        self._process = process
        self._board = board
        self._lock = threading.RLock()
        self._frontier = 0
        self._generation = 0
        self._sizes: list[tuple[int, int]] = []  # (size, offset) of free blocks, sorted
        self._ends: dict[int, int] = {}  # end → offset of free blocks
        self._starts: dict[int, int] = {}  # offset → size of free blocks
        self._live: dict[int, tuple[int, bytes, int]] = {}  # offset → size with header, owner, generation
        self._freed: set[int] = set()  # offsets of live blocks that were given back and may still be viewed

    def allocate(self, size: int, owner: bytes) -> Span:
        """Return a new block of `size` bytes, to be written and then sealed.

        Raises:
            ObjectStoreFullError: the arena's virtual size is used up.
        """
        total = -(-(size + HEADER) // _ALIGN) * _ALIGN
        with self._lock:
            if self._freed:
                self._reclaim()
            offset = self._take(total)
            self._generation += 1
            self._live[offset] = (total, owner, self._generation)
            _HEADER.pack_into(self.memory, offset, UNSEALED, size, owner, self._generation)
            return Span(self._process, self.number, offset, size, self._generation)

    def _take(self, total: int) -> int:
        index = bisect.bisect_left(self._sizes, (total, 0))
        if index < len(self._sizes):
            size, offset = self._sizes.pop(index)
            del self._starts[offset], self._ends[offset + size]
            if size > total:
                self._insert(offset + total, size - total)
            return offset
        last = self._ends.get(self._frontier, self._frontier)  # a free block before fresh memory grows into it
        if last + total > len(self.memory):
            raise ObjectStoreFullError(
                f"no room for {total:,} bytes: this process's part of the object store holds {len(self._live)} blocks "
                f"in {self._frontier:,} of {len(self.memory):,} bytes. Drop references (del ref) and the arrays that "
                "view their values, or make smaller objects"
            )
        if last < self._frontier:
            self._remove_free(last, self._starts.pop(last))
        self._frontier = last + total
        return last

    def _insert(self, offset: int, size: int) -> None:
        after = self._starts.pop(offset + size, None)
        if after is not None:
            self._remove_free(offset + size, after)
            size += after
        before = self._ends.pop(offset, None)
        if before is not None:
            before_size = offset - before
            del self._starts[before]
            self._sizes.pop(bisect.bisect_left(self._sizes, (before_size, before)))
            offset, size = before, size + before_size
        # Free blocks have headers too, so that the node can walk a dead maker's arena.
        _HEADER.pack_into(self.memory, offset, FREE, size - HEADER, b"", 0)
        self._starts[offset] = size
        self._ends[offset + size] = offset
        bisect.insort(self._sizes, (size, offset))

    def _remove_free(self, offset: int, size: int) -> None:
        del self._ends[offset + size]
        self._sizes.pop(bisect.bisect_left(self._sizes, (size, offset)))

    def seal(self, span: Span, owner: bytes) -> None:
        """Mark a block as written and owned by `owner`: it survives its maker."""
        with self._lock:
            self._live[span.offset] = (self._live[span.offset][0], owner, span.generation)
        _HEADER.pack_into(self.memory, span.offset, SEALED, span.size, owner, span.generation)

    def free(self, spans: list[Span]) -> None:
        """Take blocks back, as soon as nobody views them."""
        with self._lock:
            for span in spans:
                block = self._live.get(span.offset)
                if block is None or block[2] != span.generation or span.offset in self._freed:
                    raise InternalError(f"block {span} is freed twice")
                self._give_up(span.offset)

    def free_owner(self, owner: bytes) -> None:
        """Take back all blocks of an owner that has died."""
        with self._lock:
            for offset, (_, whose, _) in self._live.items():
                if whose == owner:
                    self._give_up(offset)

    def _give_up(self, offset: int) -> None:
        self._freed.add(offset)
        # The node, which walks the arena if we die before the block is used again, must not keep it for its owner.
        _STATE.pack_into(self.memory, offset, UNSEALED)

    def _reclaim(self) -> None:
        held = self._board.held()
        for offset in [offset for offset in self._freed if (self.number, offset) not in held]:
            self._freed.remove(offset)
            self._insert(offset, self._live.pop(offset)[0])

    def busy(self) -> bool:
        """Return whether this thread is in the middle of a change."""
        return self._lock._is_owned()  # type: ignore[attr-defined]

    def usage(self) -> tuple[int, int]:
        """Return (blocks alive, bytes ever touched)."""
        with self._lock:
            self._reclaim()
            return len(self._live), self._frontier


def is_there(memory: mmap.mmap | memoryview, offset: int, span: Span) -> bool:
    """Return whether the header at `offset` is that of this sealed block, and not of a later one in its place."""
    state, size, _, generation = _HEADER.unpack_from(memory, offset)
    return state == SEALED and generation == span.generation and size == span.size


def sealed_blocks(fd: int) -> dict[int, bytes]:
    """Return the owner of each sealed block of an arena, by offset; for the node, once the maker is dead."""
    blocks = {}
    with map_arena(fd) as memory:
        offset = 0
        while offset + HEADER <= len(memory):
            state, size, owner, _ = _HEADER.unpack_from(memory, offset)
            if state == UNTOUCHED:
                break
            if state == SEALED:
                blocks[offset] = owner
            offset += -(-(size + HEADER) // _ALIGN) * _ALIGN
    return blocks
