"""Blocks of shared memory: one growing arena per making process.

    maker   allocates blocks in its own arena and writes them; it alone frees and reuses them
    node    holds every arena's descriptor, so that a block outlives its maker, and the board's
    reader  maps an arena whole, once, and takes read-only views; its line on the board names the blocks it views

An arena is a sparse memfd of fixed virtual size: it grows as pages are touched, and is never remapped. Memory that
was used once is used again before fresh memory is: writing into fresh pages costs five times as much. A freed block
is reused only when no living process has it on the board. A reader writes its line while it still holds a reference
to the object, and the owner frees the object only after it was told that the reference is gone, so the line is
always seen in time; no atomic operation is needed. Blocks of an object that was moved to disk are freed while readers
may just be coming: there, the maker marks the block before it reads the board, the reader writes the board before it
reads the mark, and each passes through a lock in between, which orders the two for the processor: one sees the other.

An arena touches no more memory than its budget (`budget.py`), which the node grants in steps (`store_budgets.py`), so
that putting into memory that was used before needs no question. What is free is given back to the kernel when the node
wants it (`trim`). The blocks of one value are made together, side by side: a maker that had some of them while it waits
for room for the others would hold what another one needs.
"""

from __future__ import annotations

import bisect
import errno
import mmap
import os
import resource
import struct
import threading
from collections.abc import Callable, Iterator, Sequence

from ...core.resources.machine_memory import human_bytes
from ...exceptions import InternalError, ObjectStoreFullError
from ..protocol.descriptors import opening
from ..protocol.messages import Span
from .board import Board
from .budget import CHUNK, Budget

HEADER = 64
_ALIGN = 64
_HEADER = struct.Struct("<QQ8sQ")  # state, size, owner, generation
_STATE = struct.Struct("<Q")
UNTOUCHED, FREE = 0, 1
UNSEALED, SEALED = 2, 3  # unsealed: being written, or given back while a reader may still view it


def map_arena(fd: int) -> mmap.mmap:
    """Map the whole of an arena; the mapping has a descriptor of its own.

    Raises:
        OSError: also ENOMEM, which says what there is to do, if this process has no addresses left for it.
    """
    try:
        return opening(lambda: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        may = "" if limit == resource.RLIM_INFINITY else f" of {human_bytes(limit)} (ulimit -v)"
        raise OSError(
            errno.ENOMEM,
            f"pid {os.getpid()} has no addresses left{may} to map {human_bytes(os.fstat(fd).st_size)} of shared "
            "memory, of which only what is used takes memory. Raise the limit; a smaller init(object_store_memory=…) "
            "takes fewer, and engine='serial' none",
        ) from None


class Arena:
    """The blocks that this process makes: best fit, neighbours joined, touched memory first.

    Args:
        process: this process.
        number: what the node holds the descriptor under.
        fd: the arena; not needed afterwards.
        board: the board of holders.
        capacity: how many bytes all arenas of the node may take together.
        want: asks for so many bytes under a request's number; returns after their `grant`, raises
            ObjectStoreFullError if there are none.
    """

    on_disk = False

    def __init__(  # noqa: PLR0917  # what an arena is made of, put together once
        self, process: bytes, number: int, fd: int, board: Board, capacity: int, want: Callable[[int, int], None]
    ) -> None:
        self.number = number
        self.memory = map_arena(fd)
        self._process = process
        self._board = board
        self._want = want
        self._lock = threading.RLock()
        self._frontier = 0
        # Not from one on: once this arena is closed, the node may hold another one under its number, and whoever still
        # looks for a block of this one must not take one of that, of the same place and size, for it.
        self._generation = int.from_bytes(os.urandom(6))
        self._sizes: list[tuple[int, int]] = []  # (size, offset) of free blocks, sorted
        self._ends: dict[int, int] = {}  # end → offset of free blocks
        self._starts: dict[int, int] = {}  # offset → size of free blocks
        self._live: dict[int, tuple[int, bytes, int]] = {}  # offset → size with header, owner, generation
        self._freed: set[int] = set()  # offsets of live blocks that were given back and may still be viewed
        self.budget = Budget(capacity)
        self._touched = bytearray()  # for each chunk: 1 if it takes memory

    def allocate(self, sizes: Sequence[int], owner: bytes) -> list[Span]:
        """Return new blocks of these sizes, to be written and then sealed: all of them or none.

        Raises:
            ObjectStoreFullError: there is no room, neither here nor, after others were asked, in the node's store.
        """
        with self._lock:
            spans = self._place(sizes, owner)
            if spans is not None:
                return spans
            request = self.budget.ask()
        try:
            most = self.budget.most(sum(map(_with_header, sizes)) + HEADER)
            self._want(request, most)  # without the lock: the thread that reads meanwhile may have to free blocks
            with self._lock:
                self.budget.settle(request)
                spans = self._place(sizes, owner)
                if spans is None:
                    raise InternalError(f"{most} bytes were granted, and are not enough for {list(sizes)}")
                return spans
        finally:
            with self._lock:
                self.budget.settle(request)

    def _place(self, sizes: Sequence[int], owner: bytes) -> list[Span] | None:
        """Return new blocks, one behind the other; None if that takes more memory than is spare."""
        if self._freed:
            self._reclaim()
        totals = [_with_header(size) for size in sizes]
        whole = sum(totals)
        index = bisect.bisect_left(self._sizes, (whole, 0))
        offset = self._sizes[index][1] if index < len(self._sizes) else self._fresh(whole)
        end = offset + whole + HEADER
        missing = self._missing(offset, end)
        if end > len(self.memory) or missing > self.budget.spare:
            return None
        self._touch(offset, end, missing)
        self._take(offset, whole)
        spans = []
        offset += whole
        # From the last to the first: should we be killed here, the node, which walks the arena, finds all or none.
        for size, total in zip(reversed(sizes), reversed(totals), strict=True):
            offset -= total
            self._generation += 1
            self._live[offset] = (total, owner, self._generation)
            _HEADER.pack_into(self.memory, offset, UNSEALED, size, owner, self._generation)
            spans.append(Span(self._process, self.number, offset, size, self._generation, self.on_disk))
        return spans[::-1]

    def _fresh(self, whole: int) -> int:
        """Return where blocks that grow into fresh memory begin; raises if they end behind all addresses."""
        offset = self._ends.get(self._frontier, self._frontier)  # a free block before them becomes a part of them
        if whole + HEADER <= self.budget.capacity and offset + whole + HEADER > len(self.memory):
            raise self._scattered(whole)
        return offset

    def _scattered(self, whole: int) -> Exception:
        return ObjectStoreFullError(
            f"no room for {whole:,} bytes: this process's {len(self._live)} blocks are scattered over the "
            f"{len(self.memory):,} bytes that it can address. Drop references (del ref) and the arrays that view "
            "their values, or make smaller objects"
        )

    def _take(self, offset: int, total: int) -> None:
        size = self._starts.pop(offset, 0)
        if size:
            self._remove_free(offset, size)
        if size > total:
            self._insert(offset + total, size - total)
        if offset + total > self._frontier:
            self._frontier = offset + total
            _STATE.pack_into(self.memory, self._frontier, UNTOUCHED)  # where the memory was used before, and kept

    # Memory that is touched -------------------------------------------------------------------------------------

    def _missing(self, start: int, end: int) -> int:
        """Return how many bytes of fresh memory writing there takes."""
        first, last = start // CHUNK, -(-end // CHUNK)
        return (last - first - self._touched.count(1, first, last)) * CHUNK

    def _touch(self, start: int, end: int, missing: int) -> None:
        if missing:
            first, last = start // CHUNK, -(-end // CHUNK)
            self._touched.extend(bytes(max(0, last - len(self._touched))))
            self._touched[first:last] = b"\1" * (last - first)
            self.budget.use(missing)

    def grant(self, request: int, size: int) -> None:
        """Event: the node grants so many bytes more."""
        with self._lock:
            self.budget.grant(request, size)

    def trim(self) -> int:
        """Give free memory back to the kernel; return by how many bytes the budget has shrunk."""
        with self._lock:
            if self._freed:
                self._reclaim()
            if not self._live:  # not even a header is needed
                self._give_back(0, len(self._touched) * CHUNK)
                self._frontier = 0
                self._sizes, self._ends, self._starts = [], {}, {}
            for offset, size in self._starts.items():
                self._give_back(offset + HEADER, offset + size)
            return self.budget.give_back()

    def _give_back(self, start: int, end: int) -> None:
        """Give the whole chunks in there back to the kernel."""
        first, last = -(-start // CHUNK), end // CHUNK
        count = self._touched.count(1, first, last) if last > first else 0
        if count:
            self._remove(first * CHUNK, (last - first) * CHUNK)
            self._touched[first:last] = bytes(last - first)
            self.budget.stop_using(count * CHUNK)

    def _remove(self, start: int, size: int) -> None:
        self.memory.madvise(mmap.MADV_REMOVE, start, size)

    # Free blocks ------------------------------------------------------------------------------------------------

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
        """Take blocks back, as soon as they are not viewed."""
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
        """Return (blocks alive, bytes of memory taken)."""
        with self._lock:
            self._reclaim()
            return len(self._live), self.budget.used

    def lingering(self) -> int:
        """Return the bytes of blocks that were given back and are still viewed."""
        with self._lock:
            return sum(self._live[offset][0] for offset in self._freed)


def _with_header(size: int) -> int:
    return -(-(size + HEADER) // _ALIGN) * _ALIGN


def is_there(memory: mmap.mmap | memoryview, offset: int, span: Span) -> bool:
    """Return whether the header at `offset` is that of this sealed block, and not of a later one in its place."""
    state, size, _, generation = _HEADER.unpack_from(memory, offset)
    return state == SEALED and generation == span.generation and size == span.size


def size_in_use(arena: int, offset: int) -> int:
    """Return the bytes of the block there, for the node that holds its arena; 0 if there is none."""
    header = os.pread(arena, HEADER, offset)
    if len(header) < HEADER:
        return 0
    state, size, _, _ = _HEADER.unpack_from(header)
    return size if state in {UNSEALED, SEALED} else 0


def walk(memory: mmap.mmap) -> Iterator[tuple[int, int, int, bytes]]:
    """Return offset, size with header, state and owner of each block of an arena."""
    offset = 0
    while offset + HEADER <= len(memory):
        state, size, owner, _ = _HEADER.unpack_from(memory, offset)
        if state == UNTOUCHED:
            return
        total = _with_header(size)
        yield offset, total, state, owner
        offset += total


def read_block(span: Span, start: int, size: int) -> bytes | None:
    """Return a part of a sealed block; for the node that holds its arena. None if the block is not there any more."""
    header = os.pread(span.arena, HEADER, span.offset)
    data = os.pread(span.arena, min(size, span.size - start), span.offset + HEADER + start)
    # Looked at again: the maker may have reused the block meanwhile.
    again = os.pread(span.arena, HEADER, span.offset)
    there = header == again and len(header) == HEADER and is_there(memoryview(header), 0, span)
    return data if there else None
