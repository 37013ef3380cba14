"""The rows of `shoal.runtime.state`, in Ray's words; times are Unix times in milliseconds, ids hexadecimal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskState:
    """A task, a call of an actor's method, or the start of an actor.

    Attributes:
        type: NORMAL_TASK, ACTOR_TASK or ACTOR_CREATION_TASK.
        state: PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT (waits for a worker or its actor), SUBMITTED_TO_WORKER,
            RUNNING, FINISHED or FAILED.
        reason: why it has not ended, in full.
        waits_for: the same in general words, equal for all that wait for the same kind of thing.
        retries_left: how often it may be sent again after a crash; -1: without limit.
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
    required_resources: dict[str, float] = field(default_factory=dict)
    retries_left: int = 0
    creation_time_ms: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    error_type: str | None = None


@dataclass(frozen=True)
class ActorState:
    """An actor.

    Attributes:
        state: DEPENDENCIES_UNREADY (its constructor's arguments are awaited), PENDING_CREATION, ALIVE, RESTARTING or
            DEAD.
        reason: why it is not alive.
        pending_calls: calls of it that have not ended, of all processes.
    """

    actor_id: str
    class_name: str
    state: str
    name: str = ""
    reason: str = ""
    waits_for: str = ""
    node_id: str | None = None
    pid: int | None = None
    owner_pid: int | None = None
    num_restarts: int = 0
    max_restarts: int = 0
    required_resources: dict[str, float] = field(default_factory=dict)
    pending_calls: int = 0


@dataclass(frozen=True)
class ObjectState:
    """An object.

    Attributes:
        where: waiting (no value yet), message (it travels inside messages), shared memory, spilled, failure (an
            exception), or actor (it is what keeps an actor alive).
        local_references: references in the process that owns it.
        borrowers: pids of other processes that hold references.
        call_site: where it was made, if call sites are recorded.
    """

    object_id: str
    where: str
    object_size: int
    owner_pid: int | None = None
    local_references: int = 0
    borrowers: list[int] = field(default_factory=list)
    call_site: str = ""
    made_by: str = ""
    node_id: str | None = None


@dataclass(frozen=True)
class WorkerState:
    """A process of the runtime.

    Attributes:
        pid: None while it is being made: it has none yet.
        worker_type: DRIVER, WORKER (tasks) or ACTOR.
        title: what its process title says.
        is_alive: False while it is starting or ending.
        executing: names of what it executes now.
        waits: what its threads wait for, as sentences.
        answers: it has said itself how it is; False: it did not answer in time.
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
    executing: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    answers: bool = True
    blocked: bool = False
    required_resources: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    memory: int = 0
    shared_memory: int = 0
    viewed_memory: int = 0
    start_time_ms: int | None = None


@dataclass(frozen=True)
class NodeState:
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
    resources_used: dict[str, float]
    metrics_address: str = ""
    start_time_ms: int | None = None

    def __getitem__(self, key: str) -> Any:
        """Return what Ray calls so; KeyError for what is none of `RAY_NAMES`."""
        if key in ("Alive", "alive"):
            return self.state == "ALIVE"
        if key not in RAY_NAMES:
            raise KeyError(f"{key!r}: a node has {', '.join(map(repr, RAY_NAMES))}, and as attributes more")
        return getattr(self, RAY_NAMES[key])


#: What Ray's `nodes()` calls an attribute of `NodeState`.
RAY_NAMES = {
    "NodeID": "node_id",
    "Alive": "state",
    "alive": "state",
    "NodeName": "node_name",
    "NodeManagerHostname": "node_name",
    "Resources": "resources_total",
}


@dataclass(frozen=True)
class PlacementGroupState:
    """A placement group: its state is PENDING, CREATED or REMOVED, `reason` why it is not created."""

    placement_group_id: str
    name: str
    strategy: str
    state: str
    bundles: list[dict[str, float]]
    reason: str = ""


@dataclass(frozen=True)
class WaitState:
    """A thread in `get` or `wait`: since when, Unix time in milliseconds, and why."""

    pid: int
    thread: str
    since_ms: int
    seconds: float
    reason: str
    waits_for: str
