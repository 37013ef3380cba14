"""Shared memory whose maker is dead: kept by the node as long as a living owner has something in it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..protocol.messages import ProcessId, Span
from ..store.arena import SEALED, map_arena, walk


@dataclass
class _DeadArena:
    """Its blocks that living owners need: (size with header, owner) by offset; and the others, which may be viewed."""

    blocks: dict[int, tuple[int, ProcessId]]
    unneeded: dict[int, int]


class DeadArenas:
    """Arenas of dead makers, by maker and descriptor.

    Args:
        held: returns (arena, offset) of all blocks that are viewed.

    Attributes:
        on_disk: descriptors of arenas that are files, whose size is nobody's worry.
    """

    def __init__(self, held: Callable[[], set[tuple[int, int]]]) -> None:
        self._held = held
        self._arenas: dict[tuple[ProcessId, int], _DeadArena] = {}
        self.on_disk: set[int] = set()

    def process_died(
        self, process: ProcessId, arenas: Iterable[int], lives: Callable[[ProcessId], bool]
    ) -> set[ProcessId]:
        """Forget what a dead process owned; keep the arenas that it made if they hold blocks of the living.

        Returns:
            those that own blocks in its arenas.
        """
        for arena in self._arenas.values():
            for offset in [offset for offset, (_, owner) in arena.blocks.items() if owner == process]:
                arena.unneeded[offset] = arena.blocks.pop(offset)[0]
        for fd in arenas:
            arena = self._arenas[process, fd] = _DeadArena({}, {})
            with map_arena(fd) as memory:
                for offset, size, state, owner in walk(memory):
                    if state == SEALED and lives(owner):
                        arena.blocks[offset] = size, owner
                    else:
                        arena.unneeded[offset] = size
        self._close_empty()
        mine = [arena for (maker, _), arena in self._arenas.items() if maker == process]
        return {owner for arena in mine for _, owner in arena.blocks.values()}

    def keep_only(self, maker: ProcessId, owner: ProcessId, spans: Iterable[Span]) -> None:
        """Forget all blocks of an owner in a dead process's arenas but these."""
        needed = {(span.arena, span.offset) for span in spans}
        for (whose, fd), arena in self._arenas.items():
            for offset, (size, theirs) in list(arena.blocks.items()):
                if whose == maker and theirs == owner and (fd, offset) not in needed:
                    arena.unneeded[offset] = size
                    del arena.blocks[offset]
        self._close_empty()

    def holds(self, maker: ProcessId, arena: int) -> bool:
        """Return whether this arena of a dead maker is kept."""
        return (maker, arena) in self._arenas

    def numbers(self) -> set[int]:
        """Return the descriptors of all arenas that are kept."""
        return {number for _, number in self._arenas}

    def free(self, spans: Iterable[Span]) -> None:
        """Forget blocks that their owner needs no more."""
        for span in spans:
            arena = self._arenas.get((span.maker, span.arena))
            block = None if arena is None else arena.blocks.pop(span.offset, None)
            if arena is not None and block is not None:
                arena.unneeded[span.offset] = block[0]
        self._close_empty()

    def size(self) -> int:
        """Free the blocks that are neither needed nor viewed; return the bytes that are left."""
        if not self._arenas:
            return 0
        held = self._held()
        for (_, fd), arena in self._arenas.items():
            free = [offset for offset in arena.unneeded if (fd, offset) not in held]
            if free:
                with map_arena(fd) as memory:
                    for offset in free:
                        _remove(memory, offset, arena.unneeded.pop(offset))
        return sum(os.fstat(fd).st_blocks * 512 for _, fd in self._arenas if fd not in self.on_disk)

    def _close_empty(self) -> None:
        for key in [key for key, arena in self._arenas.items() if not arena.blocks]:
            del self._arenas[key]
            self.on_disk.discard(key[1])
            os.close(key[1])


def _remove(memory: mmap.mmap, offset: int, size: int) -> None:
    """Give whole pages inside a block back to the kernel."""
    first, last = -(-offset // mmap.PAGESIZE), (offset + size) // mmap.PAGESIZE
    if last > first:
        memory.madvise(mmap.MADV_REMOVE, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)
