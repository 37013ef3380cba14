"""Public rows for objects, and the table of who holds the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .diagnosis import Diagnosis
from .reports import ObjectReport
from .state_rows import ObjectState, WorkerState

_UNITS = ("B", "KB", "MB", "GB", "TB")


def object_rows(diagnosis: Diagnosis) -> Iterator[ObjectState]:
    """Yield all objects once: as their owner sees them, or, if that is gone, as one of the others does."""
    owned: dict[bytes, ObjectReport] = {}
    borrowed: dict[bytes, list[tuple[ObjectReport, bytes]]] = {}
    for process in diagnosis.processes.values():
        for row in process.objects:
            if row.object[:8] == process.process:
                owned[row.object] = row
            else:
                borrowed.setdefault(row.object, []).append((row, process.process))
    for object_id, row in owned.items():
        holders = {holder for _, holder in borrowed.get(object_id, ())} | set(row.borrowers)
        yield _row(diagnosis, row, holders, row.local)
    for object_id, others in borrowed.items():
        if object_id not in owned:
            yield _row(diagnosis, others[0][0], {holder for _, holder in others}, 0)


def _row(diagnosis: Diagnosis, row: ObjectReport, holders: set[bytes], local: int) -> ObjectState:
    made_by = diagnosis.maker(row.object)
    return ObjectState(
        row.object.hex(),
        row.where,
        row.size,
        diagnosis.pid(row.object[:8]),
        local,
        sorted(pid for holder in holders if (pid := diagnosis.pid(holder)) is not None),
        row.site,
        made_by[0].name if made_by is not None else "",
        row.object[:4].hex(),
    )


@dataclass(frozen=True)
class ObjectSummary:
    """Objects of one owner, call site and place: how many, and their bytes."""

    owner_pid: int | None
    call_site: str
    where: str
    count: int
    size: int


@dataclass(frozen=True)
class MemoryTable:
    """Who holds the object store's memory, largest first; `str` shows a table.

    Attributes:
        viewers: processes in which arrays view some of it, which cannot be moved or freed, though its owner drop it.
    """

    rows: list[ObjectSummary]
    viewers: list[WorkerState]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(row.size for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{'owner':>9}  {'objects':>8}  {'size':>9}  {'where':<13}  call site"]
        for row in self.rows:
            owner = "gone" if row.owner_pid is None else str(row.owner_pid)
            site = row.call_site or "(not recorded: set SHOAL_RECORD_CALL_SITES=1)"
            lines.append(f"{owner:>9}  {row.count:>8}  {human_bytes(row.size):>9}  {row.where:<13}  {site}")
        count = sum(row.count for row in self.rows)
        lines.append(f"{'in all':>9}  {count:>8}  {human_bytes(self.total):>9}")
        for viewer in self.viewers:
            lines.append(f"{viewer.pid:>9}  {'views':>8}  {human_bytes(viewer.viewed_memory):>9}  {viewer.title}")
        return "\n".join(lines)


def summarize_rows(rows: Iterable[ObjectState]) -> list[ObjectSummary]:
    """Return objects counted by owner, call site and place, the largest first."""
    found: dict[tuple[int | None, str, str], tuple[int, int]] = {}
    for row in rows:
        key = (row.owner_pid, row.call_site, row.where)
        count, size = found.get(key, (0, 0))
        found[key] = (count + 1, size + row.object_size)
    summaries = [ObjectSummary(*key, *sums) for key, sums in found.items()]
    return sorted(summaries, key=lambda row: (-row.size, -row.count))


def memory_table(rows: Iterable[ObjectState], workers: Iterable[WorkerState]) -> MemoryTable:
    """Return the table of objects with their holders and viewers."""
    viewers = [worker for worker in workers if worker.viewed_memory]
    return MemoryTable(summarize_rows(rows), sorted(viewers, key=lambda worker: -worker.viewed_memory))


def human_bytes(size: float) -> str:
    """Return a size in words: 1.5 MB."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} B"
