"""How tests lose objects for real: the headers of their blocks in shared memory are overwritten."""

import os
from collections.abc import Iterator

import psutil

from shoal.runtime.native.store.arena import SEALED, map_arena, walk

_GENERATION_AT = 24  # bytes into a block's header


def sealed_blocks(fd: int) -> dict[int, bytes]:
    """Return the owner of each sealed block of an arena, by offset."""
    with map_arena(fd) as memory:
        return {offset: owner for offset, _, state, owner in walk(memory) if state == SEALED}


def _blocks(at_least: int, at_most: int) -> Iterator[tuple[int, int]]:
    """Yield arena and offset of all sealed blocks of the node whose size is in the range."""
    node = next(child for child in psutil.Process().children() if "shoal: node" in " ".join(child.cmdline()))
    folder = f"/proc/{node.pid}/fd"
    for name in os.listdir(folder):
        try:
            if not os.readlink(f"{folder}/{name}").startswith("/memfd:shoal-arena"):
                continue
            arena = os.open(f"{folder}/{name}", os.O_RDWR)
        except FileNotFoundError:  # the node has just closed it
            continue
        for offset in sealed_blocks(arena):
            if at_least <= int.from_bytes(os.pread(arena, 8, offset + 8), "little") <= at_most:
                yield arena, offset
        os.close(arena)


def count_blocks() -> int:
    """Return how many sealed blocks there are."""
    return sum(1 for _ in _blocks(0, 1 << 40))


def lose_blocks(at_least: int = 0, at_most: int = 1 << 40) -> int:
    """Make all sealed blocks of the node unreadable whose size is in the range; return how many."""
    lost = 0
    for arena, offset in _blocks(at_least, at_most):
        os.pwrite(arena, os.urandom(8), offset + _GENERATION_AT)
        lost += 1
    return lost
