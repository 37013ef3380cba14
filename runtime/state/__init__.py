"""What the runtime is doing, and why something waits; as Ray's `ray.util.state`.

Every function asks the processes themselves, also while they compute. It asks the runtime that this process uses, or,
where it uses none, the newest one of this user on this machine; `address` names another one (see `sessions`).
Lists hold at most `limit` rows of each process; `Rows.total` tells how many there are. Tasks that have ended are listed
as long as the process that submitted them remembers them: its last 10 000 events.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from ..core.reports.diagnosis import Diagnosis
from ..core.reports.rows import (
    DEFAULT_LIMIT,
    ActorState,
    NodeReport,
    NodeState,
    ObjectState,
    PlacementGroupState,
    Rows,
    TaskState,
    WaitState,
    WorkerState,
    nodes_of,
)
from ..exceptions import InputError, nearest
from ..native.protocol.observer import Session, sessions
from . import listings, summaries
from .asking import Filter, ask, listed, one
from .summaries import ActorSummary, MemoryTable, ObjectSummary, RuntimeStatus, TaskGroup, TaskSummary

__all__ = [
    "ActorState",
    "ActorSummary",
    "MemoryTable",
    "NodeState",
    "ObjectState",
    "ObjectSummary",
    "PlacementGroupState",
    "Rows",
    "RuntimeStatus",
    "Session",
    "TaskGroup",
    "TaskState",
    "TaskSummary",
    "WaitState",
    "WorkerState",
    "get_actor",
    "get_log",
    "get_node",
    "get_object",
    "get_task",
    "get_worker",
    "list_actors",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_tasks",
    "list_waits",
    "list_workers",
    "memory",
    "sessions",
    "status",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]


def status(*, address: str | None = None) -> RuntimeStatus:
    """Return everything at a glance: nodes, processes, tasks in groups, actors, longest waits."""
    return summaries.status(Diagnosis(ask(["tasks", "metrics"], DEFAULT_LIMIT, address)))


# Lists ----------------------------------------------------------------------------------------------------------------


def list_tasks(
    *, filters: Sequence[Filter] | None = None, limit: int = DEFAULT_LIMIT, address: str | None = None
) -> Rows[TaskState]:
    """Return tasks, calls of actors and starts of actors, with the reason of each one that waits.

    Args:
        filters: conditions that all rows fulfil: (field, "=" or "!=", value).
        limit: the most rows, of each process and in all.
        address: name of the runtime's session; default: that of this process, or else the newest on this machine.

    Raises:
        InputError: a bad filter or limit, or no runtime.
    """
    unlisted = 0

    def tasks(diagnosis: Diagnosis) -> list[TaskState]:
        nonlocal unlisted
        unlisted = sum(process.tasks_total - len(process.tasks) for process in diagnosis.processes.values())
        return listings.tasks(diagnosis)

    rows = listed(TaskState, tasks, ["tasks", "ended"], filters=filters, limit=limit, address=address)
    rows.total += 0 if filters else unlisted
    return rows


def list_actors(
    *, filters: Sequence[Filter] | None = None, limit: int = DEFAULT_LIMIT, address: str | None = None
) -> Rows[ActorState]:
    """Return actors; arguments and errors as for `list_tasks`. Dead ones are listed while handles of them live."""
    return listed(ActorState, listings.actors, ["tasks"], filters=filters, limit=limit, address=address)


def list_objects(
    *, filters: Sequence[Filter] | None = None, limit: int = DEFAULT_LIMIT, address: str | None = None
) -> Rows[ObjectState]:
    """Return objects that a process holds references to; arguments and errors as for `list_tasks`."""
    return listed(ObjectState, listings.objects, ["objects", "tasks"], filters=filters, limit=limit, address=address)


def list_nodes(
    *, filters: Sequence[Filter] | None = None, limit: int = DEFAULT_LIMIT, address: str | None = None
) -> Rows[NodeState]:
    """Return nodes; arguments and errors as for `list_tasks`."""
    return listed(
        NodeState, lambda diagnosis: nodes_of(diagnosis.nodes), [], filters=filters, limit=limit, address=address
    )


def list_workers(
    *, filters: Sequence[Filter] | None = None, limit: int = DEFAULT_LIMIT, address: str | None = None
) -> Rows[WorkerState]:
    """Return processes, drivers included; arguments and errors as for `list_tasks`."""
    return listed(WorkerState, listings.workers, ["tasks"], filters=filters, limit=limit, address=address)


def list_placement_groups(
    *, filters: Sequence[Filter] | None = None, limit: int = DEFAULT_LIMIT, address: str | None = None
) -> Rows[PlacementGroupState]:
    """Return placement groups; arguments and errors as for `list_tasks`."""
    return listed(PlacementGroupState, listings.placement_groups, [], filters=filters, limit=limit, address=address)


def list_logs(*, address: str | None = None) -> list[str]:
    """Return the names of the run's log files; the serial engine has none."""
    return _log_names(ask([], 1, address))


def _log_names(nodes: list[NodeReport]) -> list[str]:
    return sorted({name for node in nodes if os.path.isdir(node.logs) for name in os.listdir(node.logs)})


def get_log(
    filename: str | None = None, *, pid: int | None = None, tail: int = 1000, address: str | None = None
) -> Iterator[str]:
    """Yield the last `tail` lines (-1: all) of a log file, or of all those of a process, living or dead.

    Raises:
        InputError: there is no such file, or not one of `filename` and `pid` is given.
    """
    nodes = ask([], 1, address)
    if (filename is None) == (pid is None):
        raise InputError("get_log wants either filename= or pid=; list_logs() returns the names of files")
    names = _log_names(nodes)
    wanted = [name for name in names if name == filename or (pid is not None and _is_of(name, pid))]
    if not wanted:
        what = f"file {filename!r}" if pid is None else f"file of pid {pid}"
        raise InputError(
            f"get_log: there is no log {what}: nothing was printed. {nearest(str(filename or pid), names)}"
        )
    for name in wanted:
        for node in nodes:
            path = os.path.join(node.logs, name)
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    lines = file.read().splitlines()
                yield from lines if tail < 0 else lines[max(0, len(lines) - tail) :]


def _is_of(name: str, pid: int) -> bool:
    return str(pid) in name.replace(".", "-").replace("_", "-").split("-")


def list_waits(
    *, filters: Sequence[Filter] | None = None, limit: int = DEFAULT_LIMIT, address: str | None = None
) -> Rows[WaitState]:
    """Return threads that wait in `get` or `wait`, the longest wait first, and why; arguments as for `list_tasks`."""
    return listed(WaitState, listings.waits, ["tasks"], filters=filters, limit=limit, address=address)


# One ------------------------------------------------------------------------------------------------------------------


def get_task(id: Any, *, address: str | None = None) -> TaskState | None:  # noqa: A002  # Ray's name
    """Return one task by its id, the end of that, or a reference that it returned; None if it is unknown."""
    return one(list_tasks(address=address), "task_id", id)


def get_actor(id: Any, *, address: str | None = None) -> ActorState | None:  # noqa: A002
    """Return one actor by its id, the end of that, or its handle; None if it is unknown."""
    return one(list_actors(address=address), "actor_id", id)


def get_object(id: Any, *, address: str | None = None) -> ObjectState | None:  # noqa: A002
    """Return one object by its id, the end of that, or a reference; None if it is unknown."""
    return one(list_objects(address=address), "object_id", id)


def get_node(id: Any, *, address: str | None = None) -> NodeState | None:  # noqa: A002
    """Return one node by its id or the end of that; None if there is none."""
    return one(list_nodes(address=address), "node_id", id)


def get_worker(id: Any, *, address: str | None = None) -> WorkerState | None:  # noqa: A002
    """Return one process by its id or the end of that; None if there is none."""
    return one(list_workers(address=address), "worker_id", id)


# Summaries ------------------------------------------------------------------------------------------------------------


def summarize_tasks(*, address: str | None = None) -> list[TaskSummary]:
    """Return how many tasks of each name are in each state, and why; counts all of them, however many there are."""
    return summaries.tasks_by_name(Diagnosis(ask([], 1, address)))


def summarize_actors(*, address: str | None = None) -> list[ActorSummary]:
    """Return how many actors of each class are in each state."""
    return summaries.actors_by_class(list_actors(address=address))


def summarize_objects(*, address: str | None = None) -> list[ObjectSummary]:
    """Return how many objects there are, and their bytes, by owner, call site and place."""
    return summaries.objects_by_site(list_objects(address=address))


def memory(*, address: str | None = None) -> MemoryTable:
    """Return who holds and views the memory of the object store, by owner and call site; ``print`` shows a table.

    Call sites are recorded only after ``init(record_call_sites=True)`` or with SHOAL_RECORD_CALL_SITES=1.
    """
    return summaries.memory(Diagnosis(ask(["objects", "tasks"], DEFAULT_LIMIT, address)))
