"""Shared memory whose maker is dead: kept by the node as long as a living owner has something in it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from .arena import sealed_blocks
from .messages import ProcessId, Span


class DeadArenas:
    """Arenas of dead makers by maker and descriptor, and the owners of their blocks by offset."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[ProcessId, int], dict[int, ProcessId]] = {}

    def process_died(self, process: ProcessId, arenas: Iterable[int], living: Collection[ProcessId]) -> None:
        """Forget what a dead process owned; keep the arenas that it made if they hold blocks of the living."""
        for blocks in self._blocks.values():
            for offset in [offset for offset, owner in blocks.items() if owner == process]:
                del blocks[offset]
        for fd in arenas:
            self._blocks[process, fd] = {
                offset: owner for offset, owner in sealed_blocks(fd).items() if owner in living
            }
        self._close_empty()

    def free(self, spans: Iterable[Span]) -> None:
        """Forget blocks that their owner needs no more."""
        for span in spans:
            self._blocks.get((span.maker, span.arena), {}).pop(span.offset, None)
        self._close_empty()

    def _close_empty(self) -> None:
        for key in [key for key, blocks in self._blocks.items() if not blocks]:
            del self._blocks[key]
            os.close(key[1])
