"""Views of blocks of shared memory: read-only and shared, or writable and private to this process."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..protocol.descriptors import NONE_LEFT, opening
from ..protocol.messages import Span
from .arena import HEADER, Arena, is_there, map_arena
from .board import Board

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


class StaleBlockError(Exception):
    """A block is not what it was: its owner has the value elsewhere, or has to make it again.

    Attributes:
        span: which block.
    """

    def __init__(self, span: Span) -> None:
        super().__init__(span)
        self.span = span


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
            StaleBlockError: the block was given back; its owner knows where the value lies now.
            OSError: no descriptor, or no addresses, are left to look.
        """
        known = (span.maker, span.arena) in self._arenas
        memory = self._memory(span)
        if memory is None:
            raise StaleBlockError(span)
        exporter = self.export(memory, span)
        view: memoryview | bytes
        if exporter is None:  # thousands of live views: a copy needs no place on the board
            start = span.offset + HEADER
            view = bytes(memoryview(memory)[start : start + span.size])
        else:
            exporter.private = partial(self._map_private, span)
            view = memoryview(exporter).cast("B").toreadonly()
        # Looked at only now: from here on the board, or the copy, keeps the block as it is.
        if not is_there(memory, span.offset, span):
            if not known:  # its number may be another arena's by now
                self._arenas.pop((span.maker, span.arena), None)
            del view, exporter
            self.drain()
            raise StaleBlockError(span)
        return view

    def has(self, span: Span) -> bool:
        """Return whether a block is there at this moment: without a view of it, that may change at any time."""
        known = (span.maker, span.arena) in self._arenas
        try:
            memory = self._memory(span)
        except OSError:  # no descriptor is left to look; nothing says that it is lost
            return True
        there = memory is not None and is_there(memory, span.offset, span)
        if not there and not known:  # its number may be another arena's by now
            self._arenas.pop((span.maker, span.arena), None)
        return there

    def _memory(self, span: Span) -> mmap.mmap | None:
        memory = self._arenas.get((span.maker, span.arena)) or self._open(span)
        return None if memory is None or span.offset + HEADER + span.size > len(memory) else memory

    def _map_private(self, span: Span, exporter: Any) -> Any:
        """Return a writable buffer over a block that is being viewed: pages are copied as they are written."""
        start = span.offset & -mmap.PAGESIZE
        length = span.offset + HEADER + span.size - start
        try:
            fd = self._open_arena(span.arena)
        except OSError:  # the maker is dead, and with the last owner its arena
            return bytearray(exporter)
        try:
            address = _libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd, start)
        finally:
            os.close(fd)
        if address == _FAILED:  # the kernel allows only so many mappings
            return bytearray(exporter)
        private: Any = (ctypes.c_char * span.size).from_address(address + span.offset - start + HEADER)
        weakref.finalize(private, _libc.munmap, address, length).atexit = False
        header = (ctypes.c_char * HEADER).from_address(address + span.offset - start)
        if not is_there(memoryview(header).cast("B"), 0, span):
            return bytearray(exporter)
        private.keeps = exporter  # which keeps the block as it is
        return private

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
        if not self._ended:
            return
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

    def any(self) -> bool:
        """Return whether there is a view."""
        return bool(self._holds)

    def busy(self) -> bool:
        """Return whether this thread is in the middle of a change."""
        return self._lock._is_owned()  # type: ignore[attr-defined]

    def _open(self, span: Span) -> mmap.mmap | None:
        try:
            fd = self._open_arena(span.arena)
            try:
                memory = map_arena(fd)
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:  # nothing has that number any more, or what cannot be mapped
            if getattr(error, "errno", None) in (*NONE_LEFT, errno.ENOMEM):
                raise  # it is not lost, and its owner would take our word for it
            return None
        return self._arenas.setdefault((span.maker, span.arena), memory)

    def _open_arena(self, number: int) -> int:
        return opening(lambda: os.open(f"/proc/{self._node_pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC))

    def close(self) -> None:
        """Drop all mappings; views that are still alive keep theirs, and leave no trace on the board."""
        self._arenas.clear()
        self._exporters.clear()
        self._ended.clear()

    def forget(self, process: bytes) -> None:
        """Drop the mappings of a dead process's arena; views of it stay valid."""
        for key in [key for key in list(self._arenas) if key[0] == process]:
            self._arenas.pop(key, None)
