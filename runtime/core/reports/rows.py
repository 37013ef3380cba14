"""What the runtime tells of itself: one type of row for each noun, from whoever knows the thing to the terminal.

    asker ── AskState ──▶ node ── ReportState ──▶ every process
          ◀── State ────       ◀── ProcessReport ──

Who knows a thing fills in a row; who asked adds what only all rows together tell, such as why something waits
(`explained`). Ids are hexadecimal and begin with their owner's, states have Ray's names, times are Unix milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from .events import Event

#: What can be asked for beside what is always there (waits, what is executed, and counts): rows of tasks and objects,
#: events of tasks that have ended, all events, metrics.
SECTIONS = ("tasks", "objects", "ended", "events", "metrics")
#: Rows that a process gives at most, unless asked for another number.
DEFAULT_LIMIT = 10_000
# Hexadecimal digits of a node's id, and of a process's, which begin the ids of what is theirs.
NODE_DIGITS, PROCESS_DIGITS = 8, 16
_SHORT_DIGITS = 10
# The Unix time at which the monotonic clock began; taken once, so that a moment has the same time in each report.
EPOCH = time.time() - time.monotonic()

T = TypeVar("T")


def unix_ms(monotonic: float) -> int | None:
    """Return a moment of the monotonic clock as Unix milliseconds; None for 0, which stands for "not yet"."""
    return int((EPOCH + monotonic) * 1000) if monotonic else None


def short_id(hexadecimal: str) -> str:
    """Return the end of an id, as messages show it."""
    return hexadecimal[-_SHORT_DIGITS:]


class Rows(list[T]):
    """Rows of a listing.

    Attributes:
        total: how many there are in all.
    """

    def __init__(self, rows: Iterable[T] = (), total: int | None = None) -> None:
        super().__init__(rows)
        self.total = len(self) if total is None else total

    @property
    def truncated(self) -> bool:
        """Whether there are more than are listed."""
        return self.total > len(self)


class Row(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    """Base of all rows; `msgspec.structs.asdict` and `replace` work on them, and ``row["state"]``, as in Ray."""

    def __getitem__(self, key: str) -> Any:
        """Return a field; KeyError for what is none."""
        if key not in self.__struct_fields__:
            raise KeyError(f"{key!r}: {type(self).__name__} has {', '.join(self.__struct_fields__)}")
        return getattr(self, key)


class TaskState(Row):
    """A task, a call of an actor's method, or the start of an actor.

    Attributes:
        type: NORMAL_TASK, ACTOR_TASK or ACTOR_CREATION_TASK.
        state: PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT (waits for a worker or its actor), SUBMITTED_TO_WORKER,
            RUNNING, FINISHED or FAILED.
        reason: why it has not ended, in full.
        waits_for: the same in general words, equal for all that wait for the same kind of thing.
        worker_id: the process that has it, if it was sent.
        retries_left: how often it may be sent again after a crash; -1: without limit.
        error_type: the exception's, if it has failed.
        missing_arguments: objects among its arguments that have no value yet.
        queue_place: its place, from one, among its owner's that wait for the same resources or actor; 0: in none.
        behind: for a call of an actor: the call before it, if that one has not been sent either.
        promised: of a generator: the objects that it is to give values.
        count: of how many tasks that are equal so far the row tells.
    """

    task_id: str
    name: str
    type: str
    state: str
    reason: str = ""
    waits_for: str = ""
    actor_id: str | None = None
    owner_pid: int | None = None
    node_id: str | None = None
    worker_id: str | None = None
    worker_pid: int | None = None
    placement_group_id: str | None = None
    required_resources: dict[str, float] = {}
    retries_left: int = 0
    num_returns: int = 1
    creation_time_ms: int | None = None
    sent_time_ms: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    error_type: str | None = None
    missing_arguments: list[str] = []
    queue_place: int = 0
    behind: str | None = None
    promised: list[str] = []
    count: int = 1


class ExecutionState(Row):
    """A task or call that a process executes now.

    Attributes:
        awaits: objects that it awaits without blocking a thread, of which the first are named.
        untaken: if it waits until values that it has yielded are taken: how many there are.
    """

    task_id: str
    name: str
    start_time_ms: int
    awaits: list[str] = []
    untaken: int = 0


class WaitState(Row):
    """A thread in `get` or `wait`: since when, why, and for `wanted` of how many objects; the first are `missing`."""

    pid: int
    thread: str
    since_ms: int
    wanted: int
    total: int
    missing: list[str]
    seconds: float = 0.0
    reason: str = ""
    waits_for: str = ""


class ObjectState(Row):
    """An object.

    Attributes:
        where: waiting (no value yet), message (it travels inside messages), shared memory, spilled, failure (an
            exception), or actor (it is what keeps an actor alive).
        local_references: references in the process that owns it.
        borrowers: pids of other processes that hold references.
        borrower_ids: these processes' ids.
        call_site: where it was made, if call sites are recorded.
    """

    object_id: str
    where: str
    object_size: int
    owner_pid: int | None = None
    local_references: int = 0
    borrowers: list[int] = []
    borrower_ids: list[str] = []
    call_site: str = ""
    made_by: str = ""
    node_id: str | None = None


class ActorState(Row):
    """An actor.

    Attributes:
        state: DEPENDENCIES_UNREADY (its constructor's arguments are awaited), PENDING_CREATION, ALIVE, RESTARTING or
            DEAD.
        reason: why it is not alive.
        constructing: its constructor runs in `worker_id`, its process.
        pending_calls: calls of it that have not ended, of all processes.
    """

    actor_id: str
    class_name: str
    state: str
    name: str = ""
    reason: str = ""
    waits_for: str = ""
    node_id: str | None = None
    worker_id: str | None = None
    pid: int | None = None
    owner_id: str = ""
    owner_pid: int | None = None
    constructing: bool = False
    num_restarts: int = 0
    max_restarts: int = 0
    required_resources: dict[str, float] = {}
    pending_calls: int = 0


class WorkerState(Row):
    """A process of the runtime, as its node sees it.

    Attributes:
        pid: None while it is being made: it has none yet.
        worker_type: DRIVER, WORKER (tasks) or ACTOR.
        title: what its process title says.
        is_alive: False while it is starting or ending.
        executing: names of what it executes now.
        waits: what its threads wait for, as sentences.
        answers: it has said itself how it is; False: it did not answer in time.
        blocked: its task waits, and has lent its resources to others.
        required_resources: what its lease or actor holds at the moment.
        memory: bytes of its resident set.
        shared_memory: bytes of the object store that it has made.
        viewed_memory: bytes of the object store's memory that arrays in it view, whoever made them.
    """

    worker_id: str
    pid: int | None
    worker_type: str
    title: str
    is_alive: bool
    node_id: str
    actor_id: str | None = None
    executing: list[str] = []
    waits: list[str] = []
    answers: bool = True
    blocked: bool = False
    required_resources: dict[str, float] = {}
    cpu_seconds: float = 0.0
    memory: int = 0
    shared_memory: int = 0
    viewed_memory: int = 0
    start_time_ms: int | None = None


class NodeState(Row):
    """A node and what it has, in all and in use; `metrics_address` is empty if there is no endpoint.

    `state` is "ALIVE" or "DEAD". ``node["NodeID"]`` reads it as Ray's `nodes()` has it: see `RAY_NAMES`.
    """

    node_id: str
    node_name: str
    state: str
    pid: int
    session: str
    is_head_node: bool
    resources_total: dict[str, float]
    resources_used: dict[str, float] = {}
    metrics_address: str = ""
    start_time_ms: int | None = None

    def __getitem__(self, key: str) -> Any:
        """Return what Ray's `nodes()` calls so (`RAY_NAMES`), or a field; KeyError for what is neither."""
        if key in ("Alive", "alive"):
            return self.state == "ALIVE"
        return super().__getitem__(RAY_NAMES.get(key, key))

    def free(self, resource: str) -> float:
        """Return how much of a resource is not in use."""
        return self.resources_total.get(resource, 0.0) - self.resources_used.get(resource, 0.0)


#: What Ray's `nodes()` calls an attribute of `NodeState`.
RAY_NAMES = {
    "NodeID": "node_id",
    "Alive": "state",
    "alive": "state",
    "NodeName": "node_name",
    "NodeManagerHostname": "node_name",
    "Resources": "resources_total",
}


class PlacementGroupState(Row):
    """A placement group: its state is PENDING, CREATED or REMOVED, `reason` why it is not created.

    Attributes:
        bundles: the resources of each.
        node_ids: where each bundle is, once they are reserved.
        creator_id: the process that the group ends with; "" if it lasts.
    """

    placement_group_id: str
    name: str
    strategy: str
    state: str
    bundles: list[dict[str, float]]
    node_ids: list[str] = []
    creator_id: str = ""
    reason: str = ""


class RequestState(Row):
    """A request for `count` workers, or for an actor's process, that waits in the scheduler's queue, and why."""

    required_resources: dict[str, float]
    count: int
    actor_id: str | None = None
    placement_group_id: str | None = None
    note: str = ""


class MetricState(Row):
    """A metric of the program's own, of one process, by the values of its tags.

    Attributes:
        kind: counter, gauge or histogram.
        values: [number], or for a histogram [count of each bucket …, count, sum].
    """

    name: str
    kind: str
    description: str
    tag_keys: tuple[str, ...]
    boundaries: tuple[float, ...] = ()
    values: dict[tuple[str, ...], list[float]] = {}


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


def nodes_of(reports: list[NodeReport]) -> list[NodeState]:
    """Return all nodes, those that are gone last."""
    return [*(report.node for report in reports), *(gone for head in reports[:1] for gone in head.dead)]
