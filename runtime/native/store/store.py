"""Values into messages and shared memory, and back."""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...core.ids import node_of
from ...core.refs import ObjectRef
from ...core.values import serialization
from ...core.values.buffers import aligned, as_aligned
from ...core.values.packed_exceptions import unpack_exception
from ...exceptions import InternalError
from ..protocol.descriptors import opening
from ..protocol.messages import Holdings, ObjectId, Registered, Span, Value
from .arena import HEADER, Arena
from .board import Board
from .disk import DiskArena, open_unnamed, prepare
from .views import Views

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

# A value of up to this many bytes travels inside messages; of a larger one the big buffers lie in shared memory.
INLINE = 100_000
# Smaller buffers are not worth a block of their own.
SMALLEST_BLOCK = 4096
_LEAST_ADDRESSES = 1 << 32


class Provider(Protocol):
    """What a store asks of its node."""

    def hand_over(self, fd: int, on_disk: bool) -> int:
        """Give the node an arena's descriptor; return the number that it is held under."""

    def want(self, request: int, size: int, grant: Callable[[int, int], None]) -> None:
        """Return once so many bytes more were granted to this process's arena, by `grant`; see `Arena`.

        Raises:
            ObjectStoreFullError: everything is in use, and stays so.
            ShoalError: the node is gone.
        """

    def offer(self, trim: Callable[[], int]) -> None:
        """Memory is free that was in use: while others wait for some, call `trim` and pass on how much it returns."""


class Store:
    """One process's side of the object store of its node.

    Args:
        process: this process.
        board: the board of holders.
        welcome: where arenas' descriptors are found, how large the store is, where objects go that it has no room for.
        fetch: returns a block of another node.
    """

    def __init__(  # put together in one place
        self,
        process: bytes,
        board: Board,
        welcome: Registered,
        node: Provider,
        fetch: Callable[[Span], memoryview],
    ) -> None:
        self._process, self._board, self._welcome = process, board, welcome
        self._node, self._fetch = node, fetch
        self._views = Views(welcome.node_pid, board)
        self._arena: Arena | None = None
        self._disk: DiskArena | None = None
        self._lock = threading.Lock()
        self._unsealed: dict[int, tuple[Span, weakref.ref[np.ndarray]]] = {}

    @property
    def arena(self) -> Arena:
        """This process's own arena, made on first use."""
        if self._arena is None:
            with self._lock:
                if self._arena is None:
                    fd = opening(lambda: os.memfd_create("shoal-arena"))
                    try:
                        # Address space costs nothing, and scattered free blocks take some.
                        capacity = self._welcome.store_memory
                        os.ftruncate(fd, max(capacity * 4, _LEAST_ADDRESSES))
                        number = self._node.hand_over(opening(lambda: os.dup(fd)), False)
                        arena = Arena(self._process, number, fd, self._board, capacity, self._want)
                    finally:
                        os.close(fd)
                    self._views.add_own(self._process, arena)
                    self._arena = arena
        return self._arena

    def _want(self, request: int, size: int) -> None:
        self._node.want(request, size, self.arena.grant)

    def _disk_arena(self) -> DiskArena:
        if self._disk is None:
            with self._lock:
                if self._disk is None:
                    fd = open_unnamed(self._welcome.spill_directory)
                    try:
                        prepare(fd)
                        disk = DiskArena(self._process, self._node.hand_over(os.dup(fd), True), fd, self._board)
                    finally:
                        os.close(fd)
                    self._views.add_own(self._process, disk)
                    self._disk = disk
        return self._disk

    def pack(self, value: Any, owner: bytes) -> tuple[Value, list[ObjectRef]]:
        """Serialise a value for `owner`; return it beside the references inside it. Arrays of `empty` are sealed."""
        return self._pack(*serialization.dump(value), owner, seal=True)

    def pack_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Value, list[ObjectRef]]:
        """Serialise a call's arguments; this process owns them."""
        return self._pack(*serialization.dump_arguments(args, kwargs), self._process, seal=False)

    def _pack(
        self, stream: serialization.Stream, buffers: list[Any], refs: list[ObjectRef], owner: bytes, seal: bool
    ) -> tuple[Value, list[ObjectRef]]:
        ids = tuple([ref.id for ref in refs]) if refs else ()
        if not buffers and type(stream) is bytes and len(stream) <= INLINE:
            return Value(stream, (), ids), refs
        views = [buffer.raw() for buffer in buffers]
        is_small = type(stream) is bytes and len(stream) + sum([view.nbytes for view in views]) <= INLINE
        if is_small and not (views and seal and self._unsealed):
            return Value(stream, tuple([bytes(view) for view in views]), ids), refs  # type: ignore[arg-type]
        return self._pack_large(stream, views, ids, owner, seal), refs

    def _pack_large(
        self, stream: serialization.Stream, views: list[memoryview], ids: tuple[ObjectId, ...], owner: bytes, seal: bool
    ) -> Value:
        small = type(stream) is bytes and len(stream) <= INLINE
        inline = small and len(stream) + sum(view.nbytes for view in views) <= INLINE
        unsealed = self._unsealed_among(views) if seal and self._unsealed else frozenset[int]()
        large = [not inline and view.nbytes >= SMALLEST_BLOCK and i not in unsealed for i, view in enumerate(views)]
        contents: list[Sequence[Any]] = [[view] for view, is_large in zip(views, large, strict=True) if is_large]
        if not small:
            contents.append([stream] if type(stream) is bytes else stream)
        spans = iter(self._copy(contents, owner))
        placed: list[bytes | Span] = []
        for index, view in enumerate(views):
            if index in unsealed:
                placed.append(self._seal(view, owner) or self._copy([[view]], owner)[0])
            else:
                placed.append(next(spans) if large[index] else bytes(view))
        return Value(stream if small else next(spans), tuple(placed), ids)  # type: ignore[arg-type]

    def _unsealed_among(self, views: list[memoryview]) -> frozenset[int]:
        """Return which of the buffers are just a block of `empty` that was not sealed yet, each block once."""
        found: dict[int, int] = {}
        for index, view in enumerate(views):
            address = serialization.address_of(view)
            block = self._unsealed.get(address)
            if block is not None and block[0].size == view.nbytes:
                found.setdefault(address, index)
        return frozenset(found.values())

    def _seal(self, view: memoryview, owner: bytes) -> Span | None:
        """Seal the block of `empty` that is just this buffer; None if another thread has."""
        found = self._unsealed.pop(serialization.address_of(view), None)
        if found is None:
            return None
        span, array = found[0], found[1]()
        self.arena.seal(span, owner)
        if array is not None:
            array.flags.writeable = False
        return span

    def copy_values(self, values: list[Value], owner: bytes) -> list[Value]:
        """Return the same values in blocks of this process that belong to `owner`, as the old ones need not."""
        parts = [part for value in values for part in value.parts]
        blocks = [[memoryview(self._views.view(part))] for part in parts if isinstance(part, Span)]
        spans = iter(self._copy(blocks, owner))
        return [value.moved(next(spans) if isinstance(p, Span) else p for p in value.parts) for value in values]

    def _copy(self, contents: Sequence[Sequence[Any]], owner: bytes) -> list[Span]:
        """Return blocks with these contents, each in pieces; all at once, so that nothing is held while it waits."""
        if not contents:
            return []
        spans = self.arena.allocate([sum(map(len, pieces)) for pieces in contents], owner)
        try:
            for span, pieces in zip(spans, contents, strict=True):
                start = span.offset + HEADER
                for piece in pieces:
                    self.arena.memory[start : start + len(piece)] = piece
                    start += len(piece)
                self.arena.seal(span, owner)
        except BaseException:  # the user interrupts it
            self.free(spans)
            raise
        return spans

    def load(self, value: Value, copy: bool = False) -> Any:
        """Rebuild a value, `copy`: with memory of its own; raise it if it is a failure's exception."""
        if value.failed:
            assert isinstance(value.stream, bytes)
            raise unpack_exception(value.stream)
        stream = value.stream if isinstance(value.stream, bytes) else self._view(value.stream)
        if not value.buffers:
            return serialization.loads(stream)
        buffers = [self._view(part) if isinstance(part, Span) else part for part in value.buffers]
        return serialization.loads(stream, map(aligned, buffers) if copy else map(as_aligned, buffers))

    def _view(self, span: Span) -> memoryview | bytes:
        return self._views.view(span) if self.is_near(span) else self._fetch(span)

    def is_near(self, span: Span) -> bool:
        """Return whether a block lies on this node."""
        return node_of(span.maker) == node_of(self._process)

    def has(self, span: Span) -> bool:
        """Return whether a block of this node is what it was."""
        return self._views.has(span)

    def inlined(self, value: Value) -> Value:
        """Return a value that lies in no shared memory."""
        return value.moved(part if isinstance(part, bytes) else bytes(self._view(part)) for part in value.parts)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return a writable array over a new block, which `pack` will recognise by its address."""
        import numpy as np

        kind = np.dtype(dtype)
        size = math.prod(map(int, shape)) * kind.itemsize
        if kind.hasobject or not 0 < size <= sys.maxsize:
            return np.empty(shape, kind)  # or raise its own error: no array is that large
        arena = self.arena
        [span] = arena.allocate([size], self._process)
        address = 0

        def abandoned() -> None:
            if self._unsealed.pop(address, None) is not None:
                arena.free([span])

        exporter = self._views.export(arena.memory, span, abandoned)
        if exporter is None:
            arena.free([span])
            return np.empty(shape, kind)
        array: np.ndarray = np.ndarray(shape, kind, buffer=exporter)
        address = array.__array_interface__["data"][0]
        self._unsealed[address] = (span, weakref.ref(array))
        return array

    def busy(self) -> bool:
        """Return whether this thread is in the middle of changing a table."""
        return self._views.busy() or any(arena is not None and arena.busy() for arena in (self._arena, self._disk))

    def drain(self) -> None:
        """Release blocks whose last view has ended."""
        self._views.drain()

    def is_viewing(self) -> bool:
        """Return whether this process views anything."""
        return self._views.any()

    def free(self, spans: list[Span]) -> None:
        """Take back blocks of this process's own arenas; never makes one, for which the node would be asked: that is
        called by the thread that reads.

        Raises:
            InternalError: there is no such block.
        """
        in_memory, on_disk = [span for span in spans if not span.on_disk], [span for span in spans if span.on_disk]
        arenas: tuple[tuple[Arena | None, list[Span]], ...] = ((self._arena, in_memory), (self._disk, on_disk))
        for arena, theirs in arenas:
            if theirs:
                if arena is None:
                    raise InternalError(f"block {theirs[0]} is freed, and this process has no such arena")
                arena.free(theirs)
        if on_disk and self._disk is not None:
            self._disk.trim()
        self._node.offer(self.trim)

    # Sharing the store with others ------------------------------------------------------------------------------

    def give(self, value: Value, owner: bytes) -> None:
        """Make `owner` the owner of the blocks of a value that this process has made."""
        for span in (part for part in value.parts if isinstance(part, Span)):
            arena = self._disk if span.on_disk else self._arena
            assert arena is not None, "the block lies in it"
            arena.seal(span, owner)

    def on_disk(self, value: Value) -> tuple[Value, int]:
        """Return a value of the same content whose blocks lie on disk, and how many bytes were moved there.

        Raises:
            OSError: the disk has no room, or fails.
            StaleBlockError: the value has been freed meanwhile.
        """
        in_memory = [part for part in value.parts if isinstance(part, Span) and not part.on_disk]
        written = iter(self._disk_arena().write([self._views.view(span) for span in in_memory], self._process))
        copy = value.moved(next(written) if isinstance(p, Span) and not p.on_disk else p for p in value.parts)
        return copy, sum(span.size for span in in_memory)

    def trim(self) -> int:
        """Give back free memory; return how much."""
        return 0 if self._arena is None else self._arena.trim()

    def held(self) -> set[tuple[int, int]]:
        """Return arena and offset of all blocks that any process of the node views."""
        return self._board.held()

    def holdings(self) -> Holdings:
        """Return what this process has made."""
        holdings = Holdings()
        if self._arena is not None:
            holdings.blocks, holdings.made = self._arena.usage()
            holdings.lingering = self._arena.lingering()
        if self._disk is not None:
            holdings.on_disk = self._disk.usage()[1]
        return holdings

    def close(self) -> None:
        """Unmap all shared memory; arrays that are still alive keep theirs."""
        self._views.close()
        self._arena = None
        if self._disk is not None:
            self._disk.close()
            self._disk = None
        self._board.close()

    def process_died(self, process: bytes) -> None:
        """Forget a dead process's arena, and take back the blocks that were made for it."""
        self._views.forget(process)
        if self._arena is not None:
            self._arena.free_owner(process)
