"""How tests lose objects for real: the headers of their blocks in shared memory are overwritten."""

import os

import psutil

from shoal.runtime.native.store.arena import sealed_blocks

_GENERATION_AT = 24  # bytes into a block's header


def lose_blocks(at_least: int = 0, at_most: int = 1 << 40) -> int:
    """Make all sealed blocks of the node unreadable whose size is in the range; return how many."""
    node = next(child for child in psutil.Process().children() if "shoal: node" in " ".join(child.cmdline()))
    folder = f"/proc/{node.pid}/fd"
    lost = 0
    for name in os.listdir(folder):
        try:
            if not os.readlink(f"{folder}/{name}").startswith("/memfd:shoal-arena"):
                continue
            arena = os.open(f"{folder}/{name}", os.O_RDWR)
        except FileNotFoundError:  # the node has just closed it
            continue
        for offset in sealed_blocks(arena):
            if at_least <= int.from_bytes(os.pread(arena, 8, offset + 8), "little") <= at_most:
                os.pwrite(arena, os.urandom(8), offset + _GENERATION_AT)
                lost += 1
        os.close(arena)
    return lost
