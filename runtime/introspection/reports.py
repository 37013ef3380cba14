"""What one process and one node answer when asked: rows, and events as they were noted."""

from __future__ import annotations

import time

import msgspec

from .events import Event
from .rows import (
    EPOCH,
    ActorState,
    ExecutionState,
    MetricState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RequestState,
    TaskState,
    WaitState,
    WorkerState,
)


class ProcessReport(msgspec.Struct, array_like=True, kw_only=True):
    """What only this process knows.

    Attributes:
        counted: its tasks that have not ended, those of the same name, state and demand in one row.
        tasks: the same, each with a row of its own.
    """

    process_id: str
    pid: int
    tasks_total: int = 0
    objects_total: int = 0
    object_bytes: int = 0
    executing: list[ExecutionState] = []
    waits: list[WaitState] = []
    counted: list[TaskState] = []
    tasks: list[TaskState] = []
    objects: list[ObjectState] = []
    events: list[Event] = []
    metrics: list[MetricState] = []


class NodeReport(msgspec.Struct, array_like=True, kw_only=True):
    """A node, with what its processes say.

    Attributes:
        dead: for the head: nodes that are gone.
        requests: in the order of the queue.
        metrics: what processes that are gone had counted.
        logs: folder of the log files.
        silent: processes that did not answer in time.
        now_ms: when that was, by the clock of rows and events; rounded up, so that it is after all of them.
        epoch: the Unix time at which the node's monotonic clock, which events have, began.
    """

    node: NodeState
    dead: list[NodeState] = []
    workers: list[WorkerState] = []
    actors: list[ActorState] = []
    requests: list[RequestState] = []
    groups: list[PlacementGroupState] = []
    worker_deaths: int = 0
    logs: str = ""
    events: list[Event] = []
    metrics: list[MetricState] = []
    processes: list[ProcessReport] = []
    silent: list[str] = []
    now_ms: int = msgspec.field(default_factory=lambda: int((EPOCH + time.monotonic()) * 1000) + 1)
    epoch: float = EPOCH
