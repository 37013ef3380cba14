"""The board: which blocks of shared memory each process of the node is viewing.

A process writes only its own line, without a message and without a lock. The maker of a block reads all lines before it
uses the block again.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

MOST_PROCESSES = 1024
_SLOTS = 4096
_REGION = 64 + _SLOTS * 16
BOARD_BYTES = MOST_PROCESSES * _REGION


def new_board() -> int:
    """Return the descriptor of an empty board."""
    fd = os.memfd_create("shoal-board")
    os.ftruncate(fd, BOARD_BYTES)
    return fd


class Board:
    """Which blocks each process of the node is viewing. Every process writes only its own line."""

    def __init__(self, fd: int, index: int) -> None:
        self._memory = mmap.mmap(fd, 0)
        self._cells = memoryview(self._memory).cast("q")
        self._line = index * _REGION // 8
        self._free = list(range(_SLOTS - 1, -1, -1))
        self._used = 0

    def add(self, arena: int, offset: int) -> int | None:
        """Note that this process views a block; return the slot, or None if the line is full."""
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
        """Clear a slot: the block is not viewed any more."""
        self._cells[self._line + 8 + slot * 2] = 0
        self._free.append(slot)

    def held(self) -> set[tuple[int, int]]:
        """Return (arena, offset) of all blocks that any process views."""
        return {block for _, blocks in self.lines() for block in blocks}

    def lines(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield the index of each process that may view something, and (arena, offset) of the blocks that it views."""
        cells = self._cells
        for index in range(MOST_PROCESSES):
            line = index * _REGION // 8
            used = cells[line + 1]
            if used:
                slots = cells[line + 8 : line + 8 + used * 2].tolist()
                pairs = zip(slots[::2], slots[1::2], strict=True)
                yield index, [(arena - 1, offset) for arena, offset in pairs if arena]
            elif cells[line] == 0:
                break  # lines are given out in order, and this one never was

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
