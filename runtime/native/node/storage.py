"""The node's side of the object store: arenas' descriptors, budgets, what moves to disk, holders."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..protocol import messages as m
from ..protocol.loop import Loop
from ..store.arena import read_block, size_in_use
from ..store.board import Board
from .cluster import Cluster
from .dead_arenas import DeadArenas
from .known_process import Process
from .store_budgets import CallMe, Refuse, StoreBudgets, Tell


@dataclass
class Views:
    """What a process views of the store's memory: so many blocks, of so many bytes together."""

    blocks: int = 0
    size: int = 0


class Storage:
    """Does what `StoreBudgets` asks for.

    Args:
        total: bytes of memory that the store may use.
        processes: those that live.
    """

    def __init__(
        self,
        total: int,
        processes: dict[m.ProcessId, Process],
        cluster: Cluster,
        loop: Loop,
        board: Board,
    ) -> None:
        self._processes, self._cluster, self._loop = processes, cluster, loop
        self._budgets = StoreBudgets(total)
        self._board = board
        self._dead = DeadArenas(board.held)
        self._holdings: dict[m.ProcessId, m.Holdings] = {}
        self._trouble: dict[m.ProcessId, str] = {}  # why a process could not move all to disk, the last time
        self.handlers: dict[type, Callable[..., None]] = {
            m.NewArena: self._on_new_arena,
            m.ReadBlock: self._on_read_block,
            m.Free: self._on_free,
            m.StillNeeded: self._on_still_needed,
            m.WantMemory: self._on_want_memory,
            m.Trimmed: self._on_trimmed,
            m.MemoryReturned: self._on_returned,
            m.Spilled: self._on_spilled,
        }

    def joined(self, process: m.ProcessId) -> None:
        """A process has registered."""
        self._budgets.joined(process)

    def process_died(self, process: Process) -> None:
        """A process is gone; what it made for the living stays."""
        self._holdings.pop(process.id, None)
        self._trouble.pop(process.id, None)
        for owner in self._dead.process_died(process.id, process.arenas, self._cluster.lives):
            self._cluster.tell(owner, m.AskNeeded(process.id))
        self._budgets.process_died(process.id, self._dead.size(), time.monotonic())
        self._do()

    def owner_died(self, process: m.ProcessId) -> None:
        """A process of another node is gone: what dead processes have made for it is not needed any more."""
        self._dead.process_died(process, (), self._cluster.lives)
        self._budgets.dead_changed(self._dead.size(), time.monotonic())
        self._do()

    def views(self) -> dict[m.ProcessId, Views]:
        """Return the views of each process that has any: they keep memory even when the last reference is gone."""
        processes = {process.index: process for process in self._processes.values()}
        arenas = {arena for process in processes.values() for arena in process.arenas} | self._dead.numbers()
        in_memory = arenas - self._dead.on_disk
        found = {}
        for index, blocks in self._board.lines():
            sizes = [size_in_use(*block) for block in blocks if block[0] in in_memory]
            if sizes and index in processes:
                found[processes[index].id] = Views(len(sizes), sum(sizes))
        return found

    def made(self, process: Process) -> int:
        """Return the bytes of memory that a process's blocks take; what lies on disk is none."""
        in_memory = (fd for fd in process.arenas if fd not in self._dead.on_disk)
        return sum(os.fstat(fd).st_blocks * 512 for fd in in_memory)

    def _on_read_block(self, process: m.ProcessId, message: m.ReadBlock) -> None:
        span = message.span
        maker = self._processes.get(span.maker)
        held = self._dead.holds(span.maker, span.arena) if maker is None else span.arena in maker.arenas
        data = read_block(span, message.start, message.size) if held else None
        problem = "" if data is not None else "it is not there any more"
        self._cluster.tell(process, m.BlockRead(span, message.start, data or b"", problem))

    def _on_new_arena(self, process_id: m.ProcessId, message: m.NewArena) -> None:
        process = self._processes[process_id]
        assert process.connection is not None
        fd = process.connection.fds.popleft()
        process.arenas.append(fd)
        if message.on_disk:
            self._dead.on_disk.add(fd)
        self._cluster.tell(process_id, m.Answer.to(message, fd))

    def _on_free(self, process: m.ProcessId, message: m.Free) -> None:
        self._dead.free(message.spans)
        self._budgets.dead_changed(self._dead.size(), time.monotonic())
        self._do()

    def _on_still_needed(self, process: m.ProcessId, message: m.StillNeeded) -> None:
        self._dead.keep_only(message.maker, process, message.spans)
        self._budgets.dead_changed(self._dead.size(), time.monotonic())
        self._do()

    def _on_want_memory(self, process: m.ProcessId, message: m.WantMemory) -> None:
        self._budgets.wanted(process, message.request, message.size, time.monotonic())
        self._do()

    def _on_trimmed(self, process: m.ProcessId, message: m.Trimmed) -> None:
        now = time.monotonic()
        self._holdings[process] = message.holdings
        self._budgets.returned(process, message.returned, now)
        self._budgets.trimmed(process, message.movable, message.moving, now)
        self._do()

    def _on_returned(self, process: m.ProcessId, message: m.MemoryReturned) -> None:
        self._budgets.returned(process, message.size, time.monotonic())
        self._do()

    def _on_spilled(self, process: m.ProcessId, message: m.Spilled) -> None:
        self._trouble[process] = message.trouble
        self._budgets.spilled(process, message.size, time.monotonic())
        self._do()

    def _tick(self) -> None:
        # What was viewed when its maker died may be free now.
        self._budgets.dead_changed(self._dead.size(), time.monotonic())
        self._budgets.tick(time.monotonic())
        self._do()

    def _do(self) -> None:
        commands = self._budgets.commands
        while commands:
            command = commands.popleft()
            if isinstance(command, Tell):
                self._cluster.tell(command.process, command.message)
            elif isinstance(command, Refuse):
                reason = self._too_large(command) if command.too_large else self._full(command)
                self._cluster.tell(command.process, m.MemoryRefused(command.request, reason))
            elif isinstance(command, CallMe):
                self._loop.call_later(command.seconds, self._tick)

    # Messages for the user --------------------------------------------------------------------------------------

    def _too_large(self, refusal: Refuse) -> str:
        return (
            f"an object of {refusal.size:,} bytes is larger than the whole object store ({self._budgets.total:,} "
            "bytes). Make it smaller, or the store larger: init(object_store_memory=…)"
        )

    def _full(self, refusal: Refuse) -> str:
        trouble = "; ".join(sorted(set(filter(None, self._trouble.values()))))
        why = (
            f"nothing can be moved to disk ({trouble}). Make room there, or choose another folder: "
            "init(object_spilling_directory=…)"
            if trouble
            else "all that could be freed or moved to disk was, and what is left is in use"
        )
        full = f"the object store ({self._budgets.total:,} bytes) has no room for {refusal.size:,} bytes"
        lines = [f"{full}: {why}. Who holds what:"]
        views = self.views()
        for process in self._processes.values():
            lines += _describe(process, self._holdings.get(process.id, m.Holdings()), views.get(process.id, Views()))
        if self._budgets.of_dead:
            lines.append(f"  processes that have ended: made {self._budgets.of_dead:,} bytes that others still hold")
        lines.append(
            "Drop references (del ref), and the arrays that view values: what is viewed cannot be moved. Arguments of "
            "calls that have not ended, and arrays of runtime.empty, stay in memory, too: have fewer calls under way. "
            "Or make the store larger: init(object_store_memory=…)"
        )
        return "\n".join(lines)


def _describe(process: Process, holdings: m.Holdings, views: Views) -> list[str]:
    parts = []
    if holdings.objects or holdings.blocks:
        parts.append(f"owns {holdings.objects} objects, {holdings.size:,} bytes, of which {holdings.viewed:,} viewed")
        lingering = f"{holdings.lingering:,} nobody refers to, but arrays still view"
        parts.append(f"made {holdings.blocks} blocks, {holdings.made:,} bytes, of which {lingering}")
    if holdings.on_disk:
        parts.append(f"has moved {holdings.on_disk:,} bytes to disk")
    if views.blocks:
        parts.append(f"arrays in it view {views.blocks} blocks, {views.size:,} bytes")
    lines = [f"  {process.title} (pid {process.pid}): {'; '.join(parts)}"] if parts else []
    for item in holdings.largest:
        site = f" made at {item.site}" if item.site else ""
        lines.append(f"    {item.size:>15,} bytes  object {item.object.hex()[-10:]}{site}{' (viewed)' * item.viewed}")
    return lines
