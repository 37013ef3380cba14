"""Rows summed up: everything at a glance, tasks and actors by name, and who holds the object store's memory."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..core.reports.diagnosis import Diagnosis
from ..core.reports.rows import ActorState, NodeState, ObjectState, WaitState, WorkerState, nodes_of
from ..core.resources.machine_memory import human_bytes
from . import listings


class Summary(msgspec.Struct):
    """Base of what is summed up."""


class TaskGroup(Summary):
    """Tasks of one name and state that wait for the same: how many, and for how many seconds the oldest is there."""

    name: str
    type: str
    state: str
    waits_for: str
    count: int
    oldest_seconds: float


class TaskSummary(Summary):
    """How many tasks of one name and type are in each state, and what those that wait wait for."""

    name: str
    type: str
    state_counts: dict[str, int]
    waits_for: dict[str, int]


class ActorSummary(Summary):
    """How many actors of one class are in each state."""

    class_name: str
    state_counts: dict[str, int]


class ObjectSummary(Summary):
    """Objects of one owner, call site and place: how many, and their bytes."""

    owner_pid: int | None
    call_site: str
    where: str
    count: int
    size: int


class GaugeState(Summary):
    """What one process has set a gauge of the program's own to (`util.metrics.Gauge`)."""

    name: str
    pid: int
    tags: dict[str, str]
    value: float


class RuntimeStatus(Summary):
    """The runtime at one moment.

    Attributes:
        at_ms: when, Unix time in milliseconds.
        tasks: all that have not ended, the largest groups first.
        waits: threads in `get` or `wait`, the longest first.
        objects: how many objects there are, by owner.
        object_bytes: their bytes.
        shared_memory: bytes of shared memory that the object store has touched.
        gauges: those of the program's own, by name.
    """

    at_ms: int
    nodes: list[NodeState]
    workers: list[WorkerState]
    tasks: list[TaskGroup]
    actors: list[ActorState]
    waits: list[WaitState]
    objects: int
    object_bytes: int
    shared_memory: int
    gauges: list[GaugeState]


def status(diagnosis: Diagnosis) -> RuntimeStatus:
    """Return the status that reports with the sections "tasks" and "metrics" tell."""
    sums: dict[tuple[str, str, str, str], tuple[int, float]] = {}
    for row in diagnosis.counted():
        key = (row.name, row.type, row.state, row.waits_for)
        count, oldest = sums.get(key, (0, 0.0))
        age = (diagnosis.now_ms - (row.creation_time_ms or diagnosis.now_ms)) / 1000
        sums[key] = (count + row.count, max(oldest, age))
    workers = list(listings.workers(diagnosis))
    processes = diagnosis.processes.values()
    gauges = [
        GaugeState(metric.name, process.pid, dict(zip(metric.tag_keys, tags, strict=True)), value)
        for process in processes
        for metric in process.metrics
        if metric.kind == "gauge"
        for tags, (value,) in metric.values.items()
    ]
    return RuntimeStatus(
        diagnosis.now_ms,
        nodes_of(diagnosis.nodes),
        workers,
        sorted((TaskGroup(*key, *sums[key]) for key in sums), key=lambda group: (-group.count, group.name)),
        list(listings.actors(diagnosis)),
        listings.waits(diagnosis),
        sum(process.objects_total for process in processes),
        sum(process.object_bytes for process in processes),
        sum(worker.shared_memory for worker in workers),
        sorted(gauges, key=lambda gauge: (gauge.name, gauge.pid)),
    )


def tasks_by_name(diagnosis: Diagnosis) -> list[TaskSummary]:
    """Return the tasks that have not ended, counted by name."""
    found: dict[tuple[str, str], TaskSummary] = {}
    for row in diagnosis.counted():
        summary = found.setdefault((row.type, row.name), TaskSummary(row.name, row.type, {}, {}))
        _count(summary.state_counts, row.state, row.count)
        if row.waits_for:
            _count(summary.waits_for, row.waits_for, row.count)
    return [found[key] for key in sorted(found)]


def actors_by_class(rows: Iterable[ActorState]) -> list[ActorSummary]:
    """Return actors counted by class."""
    found: dict[str, ActorSummary] = {}
    for row in rows:
        _count(found.setdefault(row.class_name, ActorSummary(row.class_name, {})).state_counts, row.state, 1)
    return [found[key] for key in sorted(found)]


def _count(counts: dict[str, int], key: str, by: int) -> None:
    counts[key] = counts.get(key, 0) + by


def objects_by_site(rows: Iterable[ObjectState]) -> list[ObjectSummary]:
    """Return objects counted by owner, call site and place, the largest first."""
    found: dict[tuple[int | None, str, str], tuple[int, int]] = {}
    for row in rows:
        key = (row.owner_pid, row.call_site, row.where)
        count, size = found.get(key, (0, 0))
        found[key] = (count + 1, size + row.object_size)
    summaries = [ObjectSummary(*key, *sums) for key, sums in found.items()]
    return sorted(summaries, key=lambda row: (-row.size, -row.count))


class MemoryTable(Summary):
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


def memory(diagnosis: Diagnosis) -> MemoryTable:
    """Return the table that reports with the sections "objects" and "tasks" tell."""
    viewers = [worker for worker in listings.workers(diagnosis) if worker.viewed_memory]
    viewers.sort(key=lambda worker: -worker.viewed_memory)
    return MemoryTable(objects_by_site(listings.objects(diagnosis)), viewers)
