"""Values into messages and shared memory, and back."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import serialization
from ..failure import unpack_exception
from ..refs import ObjectRef
from .arena import HEADER, Arena, arena_capacity
from .board import Board
from .messages import Span, Value
from .views import Views

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

# A value of up to this many bytes travels inside messages; of a larger one the big buffers lie in shared memory.
INLINE = 100_000
# Smaller buffers are not worth a block of their own.
SMALLEST_BLOCK = 4096


class Store:
    """One process's side of the object store of its node.

    Args:
        process: this process.
        board: the board of holders.
        node_pid: where arenas' descriptors are found.
        hand_over: gives an arena's descriptor to the node and returns the number that the node holds it under.
    """

    def __init__(self, process: bytes, board: Board, node_pid: int, hand_over: Callable[[int], int]) -> None:
        self._process = process
        self._board = board
        self._hand_over = hand_over
        self._views = Views(node_pid, board)
        self._arena: Arena | None = None
        self._lock = threading.Lock()
        self._unsealed: dict[int, tuple[Span, weakref.ref[np.ndarray]]] = {}

    @property
    def arena(self) -> Arena:
        """This process's own arena, made on first use."""
        if self._arena is None:
            with self._lock:
                if self._arena is None:
                    fd = os.memfd_create("shoal-arena")
                    try:
                        os.ftruncate(fd, arena_capacity())
                        arena = Arena(self._process, self._hand_over(os.dup(fd)), fd, self._board)
                    finally:
                        os.close(fd)
                    self._views.add_own(self._process, arena)
                    self._arena = arena
        return self._arena

    def pack(self, value: Any, owner: bytes) -> tuple[Value, list[ObjectRef]]:
        """Serialise a value for `owner`; return it beside the references inside it. Arrays of `empty` are sealed."""
        return self._pack(*serialization.dump(value), owner, seal=True)

    def pack_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Value, list[ObjectRef]]:
        """Serialise a call's arguments; this process owns them."""
        return self._pack(*serialization.dump_arguments(args, kwargs), self._process, seal=False)

    def _pack(
        self, stream: serialization.Stream, buffers: list[Any], refs: list[ObjectRef], owner: bytes, seal: bool
    ) -> tuple[Value, list[ObjectRef]]:
        ids = [ref.id for ref in refs] if refs else []
        if not buffers and type(stream) is bytes and len(stream) <= INLINE:
            return Value(stream, [], ids), refs
        views = [buffer.raw() for buffer in buffers]
        small = type(stream) is bytes and len(stream) <= INLINE
        inline = small and len(stream) + sum(view.nbytes for view in views) <= INLINE
        placed = [
            (self._seal(view, owner) if seal and self._unsealed else None) or self._place(view, owner, inline)
            for view in views
        ]
        body: bytes | Span
        if type(stream) is not bytes:
            body = self._copy(stream, owner)
        else:
            body = stream if small else self._copy([stream], owner)
        return Value(body, placed, ids), refs

    def _seal(self, view: memoryview, owner: bytes) -> Span | None:
        """Seal the block that is just this buffer, if there is one."""
        address = serialization.address_of(view)
        found = self._unsealed.get(address)
        if found is None or found[0].size != view.nbytes:
            return None
        del self._unsealed[address]
        span, array = found[0], found[1]()
        self.arena.seal(span, owner)
        if array is not None:
            array.flags.writeable = False
        return span

    def _place(self, view: memoryview, owner: bytes, inline: bool) -> bytes | Span:
        if inline or view.nbytes < SMALLEST_BLOCK:
            return bytes(view)
        return self._copy([view], owner)

    def copy_value(self, value: Value, owner: bytes) -> Value:
        """Return the same value in blocks of this process that belong to `owner`, whoever the old ones belong to."""
        stream, *buffers = [
            self._copy([memoryview(self._views.view(part))], owner) if isinstance(part, Span) else part
            for part in (value.stream, *value.buffers)
        ]
        return Value(stream, buffers, value.refs, value.failed)

    def _copy(self, pieces: Sequence[Any], owner: bytes) -> Span:
        span = self.arena.allocate(sum(map(len, pieces)), owner)
        start = span.offset + HEADER
        for piece in pieces:
            self.arena.memory[start : start + len(piece)] = piece
            start += len(piece)
        self.arena.seal(span, owner)
        return span

    def load(self, value: Value, copy: bool = False) -> Any:
        """Rebuild a value, `copy`: with memory of its own; raise it if it is a failure's exception."""
        if value.failed:
            assert isinstance(value.stream, bytes)
            raise unpack_exception(value.stream)
        stream = value.stream if isinstance(value.stream, bytes) else self._views.view(value.stream)
        if not value.buffers:
            return serialization.loads(stream)
        buffers: list[Any] = [
            buffer if isinstance(buffer, bytes) else self._views.view(buffer) for buffer in value.buffers
        ]
        return serialization.loads(stream, map(bytearray, buffers) if copy else buffers)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return a writable array over a new block, which `pack` will recognise by its address."""
        import numpy as np

        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if kind.hasobject or size == 0:
            return np.empty(shape, kind)
        span = self.arena.allocate(size, self._process)
        address = 0

        def abandoned() -> None:
            if self._unsealed.pop(address, None) is not None:
                self.arena.free([span])

        exporter = self._views.export(self.arena.memory, span, abandoned)
        if exporter is None:
            self.arena.free([span])
            return np.empty(shape, kind)
        array: np.ndarray = np.ndarray(shape, kind, buffer=exporter)
        address = array.__array_interface__["data"][0]
        self._unsealed[address] = (span, weakref.ref(array))
        return array

    def busy(self) -> bool:
        """Return whether this thread is in the middle of changing a table."""
        return self._views.busy() or (self._arena is not None and self._arena.busy())

    def drain(self) -> None:
        """Let go of blocks whose last view has ended."""
        self._views.drain()

    def free(self, spans: list[Span]) -> None:
        """Take back blocks of this process's own arena."""
        self.arena.free(spans)

    def close(self) -> None:
        """Let go of all shared memory; arrays that are still alive keep theirs."""
        self._views.close()
        self._arena = None
        self._board.close()

    def process_died(self, process: bytes) -> None:
        """Forget a dead process's arena, and take back the blocks that were made for it."""
        self._views.forget(process)
        if self._arena is not None:
            self._arena.free_owner(process)
