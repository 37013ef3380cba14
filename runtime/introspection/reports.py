"""What processes and nodes say of themselves when asked: plain data, merged and explained only by who asked.

    asker ── AskState ──▶ node ── ReportState ──▶ every process
          ◀── State ────       ◀── ProcessReport ──

Times are seconds of the system's monotonic clock, ids are the bytes that the processes use among themselves.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

#: What can be asked for beside what is always there (waits, what is executed, and counts): rows of tasks and objects,
#: events of tasks that have ended, all events, metrics.
SECTIONS = ("tasks", "objects", "ended", "events", "metrics")
#: Rows that a process gives at most, unless asked for another number.
DEFAULT_LIMIT = 10_000
#: How many events each process remembers.
EVENTS_KEPT = 10_000

#: One thing that happened: (seconds, kind, id of the task, object or actor, details). Formatted only when asked for.
Event = tuple[float, str, bytes, Any]


class _Row(msgspec.Struct, array_like=True, gc=False):
    """Base of all rows."""


class TaskReport(_Row):
    """A task or call, from its owner.

    Attributes:
        sent: when it went to `worker`; 0: not yet.
        missing: objects among its arguments that have no value yet.
        place: its place, from one, among those of this process that wait for the same resources or actor; 0: in none.
        ahead: for a call of an actor: the call before it, if that one has not been sent either.
        count: for a group: how many of this name and state there are.
        started, ended: when it ran; 0: not known, not yet.
        error: the exception's type, if it has failed.
        promised: of a generator: the objects that it is to give values.
        group: the placement group that it is to run in.
    """

    task: bytes
    name: str
    type: str
    state: str
    submitted: float
    retries: int = 0
    demand: dict[str, float] = {}
    num_returns: int = 1
    actor: bytes = b""
    worker: bytes = b""
    sent: float = 0.0
    missing: list[bytes] = []
    place: int = 0
    ahead: bytes = b""
    count: int = 1
    started: float = 0.0
    ended: float = 0.0
    error: str = ""
    promised: list[bytes] = []
    group: bytes = b""


class ExecutingReport(_Row):
    """A task or call that a process executes now.

    Attributes:
        awaits: objects that it awaits without blocking a thread, of which the first are named.
        untaken: if it waits until values that it has yielded are taken: how many there are.
    """

    task: bytes
    name: str
    started: float
    awaits: list[bytes] = []
    untaken: int = 0


class WaitReport(_Row):
    """A thread that waits in `get` or `wait`: for `wanted` of these objects, of which the first are named."""

    thread: str
    since: float
    wanted: int
    total: int
    missing: list[bytes]


class ObjectReport(_Row):
    """An object that a process knows; `where` is waiting, message, shared memory, spilled, failure or actor."""

    object: bytes
    where: str
    size: int
    local: int
    borrowers: list[bytes] = []
    site: str = ""


class MetricReport(_Row):
    """A metric of the user's with its values by tags; a histogram's value is its buckets' counts, count and sum."""

    name: str
    kind: str
    description: str
    tag_keys: list[str]
    boundaries: list[float]
    values: list[tuple[list[str], list[float]]]


class ProcessReport(_Row):
    """What only this process knows."""

    process: bytes
    pid: int
    tasks_total: int = 0
    objects_total: int = 0
    object_bytes: int = 0
    executing: list[ExecutingReport] = []
    waits: list[WaitReport] = []
    groups: list[TaskReport] = []
    tasks: list[TaskReport] = []
    objects: list[ObjectReport] = []
    events: list[Event] = []
    metrics: list[MetricReport] = []


class WorkerReport(_Row):
    """A process as its node sees it; `demand` is what its lease or actor holds at the moment.

    `pid` is None while it is being forked; `viewed`: bytes of the object store's memory that arrays in it view.
    """

    process: bytes
    pid: int | None
    title: str
    driver: bool
    registered: bool
    demand: dict[str, float]
    actor: bytes = b""
    asker: bytes = b""
    blocked: bool = False
    ended: bool = False
    cpu_seconds: float = 0.0
    started: float = 0.0
    memory: int = 0
    shared_memory: int = 0
    viewed: int = 0


class ActorReport(_Row):
    """An actor as its node sees it."""

    actor: bytes
    class_name: str
    name: str
    owner: bytes
    state: str
    process: bytes
    restarts: int
    max_restarts: int
    demand: dict[str, float]
    reason: str


class RequestReport(_Row):
    """A wish for workers, or for the start of an actor, that waits in the scheduler's queue; `group`: to run in it."""

    asker: bytes
    actor: bytes
    demand: dict[str, float]
    count: int
    note: str = ""
    group: bytes = b""


class GroupReport(_Row):
    """A placement group as its node sees it."""

    group: bytes
    name: str
    strategy: str
    state: str
    bundles: list[dict[str, float]]
    reason: str


# The Unix time at which the monotonic clock began; taken once, so that a moment has the same time in each report.
_EPOCH = time.time() - time.monotonic()


class DeadNode(_Row):
    """A node that is gone, and what it had."""

    node: bytes
    host: str
    pid: int
    total: dict[str, float]


class NodeReport(msgspec.Struct, array_like=True):
    """A node, with what its processes say.

    Attributes:
        metrics: what processes that are gone had counted.
        logs: folder of the log files.
        silent: processes that did not answer in time.
        dead: for the head: nodes that are gone.
    """

    node: bytes
    session: str
    pid: int
    host: str
    started: float
    total: dict[str, float]
    used: dict[str, float]
    worker_deaths: int = 0
    metrics_address: str = ""
    workers: list[WorkerReport] = []
    actors: list[ActorReport] = []
    requests: list[RequestReport] = []
    groups: list[GroupReport] = []
    logs: str = ""
    events: list[Event] = []
    metrics: list[MetricReport] = []
    processes: list[ProcessReport] = []
    silent: list[bytes] = []
    dead: list[DeadNode] = []
    now: float = msgspec.field(default_factory=time.monotonic)
    epoch: float = _EPOCH

    def wall_time(self, monotonic: float) -> float:
        """Return the Unix time of a moment of this node's monotonic clock."""
        return self.epoch + monotonic
