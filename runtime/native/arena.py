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
import ctypes
import mmap
import os
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..exceptions import InternalError, ObjectStoreFullError
from .messages import Span

HEADER = 64
_ALIGN = 64
_HEADER = struct.Struct("<QQ8sQ")  # state, size, owner, generation
_STATE = struct.Struct("<Q")
UNTOUCHED, FREE = 0, 1
UNSEALED, SEALED = 2, 3  # unsealed: being written, or given back while a reader may still view it

MOST_PROCESSES = 1024
_SLOTS = 4096
_REGION = 64 + _SLOTS * 16
BOARD_BYTES = MOST_PROCESSES * _REGION


def _map(fd: int) -> mmap.mmap:
    return mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def arena_capacity() -> int:
    """Return the virtual size of an arena: six tenths of the machine's memory."""
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 0.6) & -mmap.PAGESIZE


def new_board() -> int:
    """Return the descriptor of an empty board."""
    fd = os.memfd_create("shoal-board")
    os.ftruncate(fd, BOARD_BYTES)
    return fd


class Board:
    """Which blocks each process of the node is viewing. Every process writes only its own line."""

    def __init__(self, fd: int, index: int) -> None:
        self._memory = _map(fd)
        self._cells = memoryview(self._memory).cast("q")
        self._line = index * _REGION // 8
        self._free = list(range(_SLOTS - 1, -1, -1))
        self._used = 0

    def add(self, arena: int, offset: int) -> int | None:
        """Say that this process views a block; return the slot, or None if the line is full."""
        if not self._free:
            return None
        slot = self._free.pop()
        at = self._line + 8 + slot * 2
        self._cells[at + 1] = offset
        self._cells[at] = arena + 1  # zero means: empty
        if slot >= self._used:
            self._used = slot + 1
            self._cells[self._line + 1] = self._used
        return slot

    def remove(self, slot: int) -> None:
        """Say that it does not any more."""
        self._cells[self._line + 8 + slot * 2] = 0
        self._free.append(slot)

    def held(self) -> set[tuple[int, int]]:
        """Return (arena, offset) of all blocks that any process views."""
        held: set[tuple[int, int]] = set()
        cells = self._cells
        for index in range(MOST_PROCESSES):
            line = index * _REGION // 8
            used = cells[line + 1]
            if used:
                slots = cells[line + 8 : line + 8 + used * 2].tolist()
                held.update((arena - 1, offset) for arena, offset in zip(slots[::2], slots[1::2], strict=True) if arena)
            elif cells[line] == 0:
                break  # lines are given out in order, and this one never was
        return held

    def close(self) -> None:
        """Unmap the board."""
        self._cells.release()
        self._memory.close()

    def open_line(self, index: int) -> None:
        """Begin a process's line; for the node."""
        self._cells[index * _REGION // 8] = 1

    def clear_line(self, index: int) -> None:
        """Forget a dead process; for the node."""
        line = index * _REGION // 8
        used = self._cells[line + 1]
        for cell in range(line + 8, line + 8 + used * 2):
            self._cells[cell] = 0
        self._cells[line + 1] = 0


class Arena:
    """The blocks that this process makes: best fit, neighbours joined, touched memory first."""

    def __init__(self, process: bytes, number: int, fd: int, board: Board) -> None:
        self.number = number
        self.memory = _map(fd)
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


def sealed_blocks(fd: int) -> dict[int, bytes]:
    """Return the owner of each sealed block of an arena, by offset; for the node, once the maker is dead."""
    blocks = {}
    with _map(fd) as memory:
        offset = 0
        while offset + HEADER <= len(memory):
            state, size, owner, _ = _HEADER.unpack_from(memory, offset)
            if state == UNTOUCHED:
                break
            if state == SEALED:
                blocks[offset] = owner
            offset += -(-(size + HEADER) // _ALIGN) * _ALIGN
    return blocks


class _LastView(weakref.ref):
    """Tells the end of the last view of a block. Kept by identity: what it refers to is not hashable."""

    __slots__ = ("gone", "key")

    key: tuple[int, int]
    gone: Callable[[], None] | None


@dataclass
class _Hold:
    slot: int
    count: int


class Views:
    """Read-only views of blocks of any arena of the node; keeps this process's line on the board."""

    def __init__(self, node_pid: int, board: Board) -> None:
        self._node_pid = node_pid
        self._board = board
        self._arenas: dict[tuple[bytes, int], mmap.mmap] = {}
        self._holds: dict[tuple[int, int], _Hold] = {}
        self._exporters: dict[int, _LastView] = {}
        self._ended: deque[_LastView] = deque()
        self._lock = threading.RLock()

    def add_own(self, process: bytes, arena: Arena) -> None:
        """Use the mapping of this process's own arena."""
        self._arenas[process, arena.number] = arena.memory

    def view(self, span: Span) -> memoryview | bytes:
        """Return a read-only view of a sealed block, which stays as it is while the view, or any array on it, lives.

        Raises:
            InternalError: the block was reused, which a held reference should have prevented.
        """
        memory = self._arenas.get((span.maker, span.arena)) or self._open(span)
        exporter = self.export(memory, span)
        view: memoryview | bytes
        if exporter is None:  # thousands of live views: a copy needs no place on the board
            start = span.offset + HEADER
            view = bytes(memoryview(memory)[start : start + span.size])
        else:
            view = memoryview(exporter).cast("B").toreadonly()
        # Looked at only now: from here on the board, or the copy, keeps the block as it is.
        state, size, _, generation = _HEADER.unpack_from(memory, span.offset)
        if state != SEALED or generation != span.generation or size != span.size:
            del view, exporter
            self.drain()
            raise InternalError(f"block {span} is gone (state {state}, size {size}, generation {generation})")
        return view

    def export(self, memory: mmap.mmap, span: Span, gone: Callable[[], None] | None = None) -> Any | None:
        """Return a writable buffer over a block, on the board until the last view of it is gone; then call `gone`.

        None if this process's line on the board is full.
        """
        if self._ended:
            self.drain()
        key = (span.arena, span.offset)
        with self._lock:
            hold = self._holds.get(key)
            if hold is None:
                slot = self._board.add(*key)
                if slot is None:
                    return None
                hold = self._holds[key] = _Hold(slot, 0)
            hold.count += 1
            # numpy keeps the innermost exporter of a buffer alive, not the memoryview or array it was made from, so
            # the end of the last view is seen only on an exporter of our own.
            exporter = (ctypes.c_char * span.size).from_buffer(memory, span.offset + HEADER)
            last = _LastView(exporter, self._ended.append)  # a ref is its own callback's argument
            last.key, last.gone = key, gone
            self._exporters[id(last)] = last
            return exporter

    def drain(self) -> None:
        """Take views that have ended off the board.

        A view may end inside any allocation of any thread, so its finaliser only notes it (`_ended`): taking a lock
        there could deadlock.
        """
        callbacks = []
        with self._lock:
            while self._ended:
                last = self._ended.popleft()
                del self._exporters[id(last)]
                hold = self._holds[last.key]
                hold.count -= 1
                if hold.count == 0:
                    del self._holds[last.key]
                    self._board.remove(hold.slot)
                if last.gone is not None:
                    callbacks.append(last.gone)
        for gone in callbacks:
            gone()

    def busy(self) -> bool:
        """Return whether this thread is in the middle of a change."""
        return self._lock._is_owned()  # type: ignore[attr-defined]

    def _open(self, span: Span) -> mmap.mmap:
        fd = os.open(f"/proc/{self._node_pid}/fd/{span.arena}", os.O_RDWR | os.O_CLOEXEC)
        try:
            memory = _map(fd)
        finally:
            os.close(fd)
        return self._arenas.setdefault((span.maker, span.arena), memory)

    def close(self) -> None:
        """Drop all mappings; views that are still alive keep theirs, and leave no trace on the board."""
        self._arenas.clear()
        self._exporters.clear()
        self._ended.clear()

    def forget(self, process: bytes) -> None:
        """Drop the mappings of a dead process's arena; views of it stay valid."""
        for key in [key for key in list(self._arenas) if key[0] == process]:
            self._arenas.pop(key, None)
