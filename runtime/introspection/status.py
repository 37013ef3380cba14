"""Everything at a glance: one question to all processes, and what `shoal status` shows of the answers."""

from __future__ import annotations

from dataclasses import dataclass

from .diagnosis import Diagnosis
from .state_rows import ActorState, NodeState, WaitState, WorkerState
from .task_rows import actor_rows, node_rows, wait_rows, worker_rows


@dataclass(frozen=True)
class TaskGroup:
    """Tasks of one name and state that wait for the same: how many, and for how many seconds the oldest is there."""

    name: str
    type: str
    state: str
    waits_for: str
    count: int
    oldest_seconds: float


@dataclass(frozen=True)
class GaugeState:
    """What one process has set a gauge of the program's own to (`util.metrics.Gauge`)."""

    name: str
    pid: int
    tags: dict[str, str]
    value: float


@dataclass(frozen=True)
class RuntimeStatus:
    """The runtime at one moment.

    Attributes:
        at: seconds of the monotonic clock.
        tasks: all that have not ended, the largest groups first.
        waits: threads in `get` or `wait`, the longest first.
        objects: how many objects there are, by owner.
        object_bytes: their bytes.
        shared_memory: bytes of shared memory that the object store has touched.
        gauges: those of the program's own, by name.
    """

    at: float
    nodes: list[NodeState]
    workers: list[WorkerState]
    tasks: list[TaskGroup]
    actors: list[ActorState]
    waits: list[WaitState]
    objects: int
    object_bytes: int
    shared_memory: int
    gauges: list[GaugeState]


def status_of(diagnosis: Diagnosis) -> RuntimeStatus:
    """Return the status that reports with the sections "tasks" and "metrics" tell."""
    sums: dict[tuple[str, str, str, str], tuple[int, float]] = {}
    for row, verdict in diagnosis.groups():
        key = (row.name, row.type, verdict.state, verdict.waits_for)
        count, oldest = sums.get(key, (0, 0.0))
        sums[key] = (count + row.count, max(oldest, diagnosis.now - row.submitted))
    groups = [TaskGroup(*key, *numbers) for key, numbers in sums.items()]
    workers = list(worker_rows(diagnosis))
    gauges = [
        GaugeState(report.name, process.pid, dict(zip(report.tag_keys, tags, strict=True)), value)
        for process in diagnosis.processes.values()
        for report in process.metrics
        if report.kind == "gauge"
        for tags, (value,) in report.values
    ]
    return RuntimeStatus(
        diagnosis.now,
        list(node_rows(diagnosis)),
        workers,
        sorted(groups, key=lambda group: (-group.count, group.name)),
        list(actor_rows(diagnosis)),
        wait_rows(diagnosis),
        sum(process.objects_total for process in diagnosis.processes.values()),
        sum(process.object_bytes for process in diagnosis.processes.values()),
        sum(worker.shared_memory for worker in workers),
        sorted(gauges, key=lambda gauge: (gauge.name, gauge.pid)),
    )
