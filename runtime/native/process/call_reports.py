"""Rows for the tasks and calls that a process owns and that have not ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter

from ...introspection.rows import TaskState, unix_ms
from ...resources.amounts import in_amounts
from .actor_queues import ActorQueue
from .calls import PendingCall
from .objects import Record
from .task_queues import TaskQueue

Records = Mapping[bytes, Record]
TASK, CALL, START = "NORMAL_TASK", "ACTOR_TASK", "ACTOR_CREATION_TASK"
ARGUMENTS, QUEUED, SENT = "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER"


def _row(pending: PendingCall, kind: str, state: str, name: str = "") -> TaskState:
    return TaskState(
        task_id=pending.task.hex(),
        name=name or pending.name,
        type=kind,
        state=state,
        creation_time_ms=unix_ms(pending.submitted),
        retries_left=pending.retries,
        num_returns=len(pending.returns),
        sent_time_ms=unix_ms(pending.sent),
        promised=[] if pending.stream is None else [promised.hex() for promised in pending.stream.promised],
    )


def task_rows(records: Records, queues: Iterable[TaskQueue], awaiting: Iterable[PendingCall]) -> Iterator[TaskState]:
    """Yield the tasks: those sent, those that wait for a worker, those that wait for arguments."""
    queues = list(queues)
    for queue in queues:
        for lease in queue.leases.values():
            for pending in lease.inflight.values():
                row = _task(pending, SENT)
                row.worker_id = lease.worker.hex()
                yield row
    for queue in queues:
        for place, pending in enumerate(queue.waiting, 1):
            row = _task(pending, QUEUED)
            row.queue_place = place
            yield row
    for pending in awaiting:
        row = _task(pending, ARGUMENTS)
        row.missing_arguments = _missing(records, pending)
        yield row


def _task(pending: PendingCall, state: str) -> TaskState:
    row, queue = _row(pending, TASK, state), pending.queue
    row.required_resources, row.placement_group_id = in_amounts(queue.demand), _group_of(queue)
    return row


def _missing(records: Records, pending: PendingCall) -> list[str]:
    """Return the arguments of a call that have no value yet."""
    return [ref.hex() for ref in pending.slots if records[ref.id].value is None] if pending.missing else []


def _group_of(queue: TaskQueue) -> str | None:
    return None if queue.placement is None else queue.placement.group.hex()


def task_counts(queues: Iterable[TaskQueue], awaiting: Iterable[PendingCall]) -> Iterator[TaskState]:
    """Yield how many tasks there are of each name, state and demand."""
    for queue in queues:
        sent = [pending for lease in queue.leases.values() for pending in lease.inflight.values()]
        mine = [pending for pending in awaiting if pending.queue is queue] if awaiting else []
        for state, tasks in ((SENT, sent), (QUEUED, queue.waiting), (ARGUMENTS, mine)):
            for row in _counted(tasks, TASK, state, attrgetter("name")):
                row.required_resources, row.placement_group_id = in_amounts(queue.demand), _group_of(queue)
                yield row


def _counted(
    tasks: Iterable[PendingCall], kind: str, state: str, name_of: Callable[[PendingCall], str]
) -> Iterator[TaskState]:
    counts = Counter(map(name_of, tasks))
    oldest: dict[str, float] = {}
    for pending in tasks if counts else ():
        oldest.setdefault(name_of(pending), pending.submitted)  # they are in the order of submission
    for name, count in counts.items():
        submitted = unix_ms(oldest[name])
        yield TaskState(task_id="", name=name, type=kind, state=state, creation_time_ms=submitted, count=count)


def _call_name(pending: PendingCall) -> str:
    told = None if pending.extras is None else pending.extras.told
    return (told and told.name) or f"{pending.actor.name}.{pending.name}"


def call_rows(records: Records, queues: Iterable[ActorQueue]) -> Iterator[TaskState]:
    """Yield calls of actors' methods, and actors that are still to be started."""
    for queue in queues:
        for pending in queue.inflight.values():
            row = _row(pending, CALL, SENT, _call_name(pending))
            row.actor_id, row.worker_id = queue.key.hex(), (queue.process or b"").hex() or None
            yield row
        behind = None
        for place, pending in enumerate(queue.waiting, 1):
            row = _row(pending, CALL, ARGUMENTS if pending.missing else QUEUED, _call_name(pending))
            row.actor_id, row.queue_place, row.behind = queue.key.hex(), place, behind
            row.missing_arguments = _missing(records, pending)
            behind = row.task_id
            yield row
        start = _start_of(queue)
        if start is not None and queue.constructor is not None:
            start.missing_arguments = _missing(records, queue.constructor.arguments)
            yield start


def _start_of(queue: ActorQueue) -> TaskState | None:
    if queue.constructor is None or queue.state == "alive":
        return None
    pending, options = queue.constructor.arguments, queue.constructor.options
    row = _row(pending, START, ARGUMENTS if pending.missing else QUEUED)
    row.actor_id, row.required_resources = queue.key.hex(), in_amounts(options.demand)
    row.retries_left = options.max_restarts
    return row


def call_counts(queues: Iterable[ActorQueue]) -> Iterator[TaskState]:
    """Yield how many calls there are of each actor, method and state."""
    for queue in queues:
        ready = [pending for pending in queue.waiting if not pending.missing]
        unready = [pending for pending in queue.waiting if pending.missing] if len(ready) < len(queue.waiting) else []
        for state, calls in ((SENT, queue.inflight.values()), (QUEUED, ready), (ARGUMENTS, unready)):
            for row in _counted(list(calls), CALL, state, _call_name):
                row.actor_id = queue.key.hex()
                yield row
        start = _start_of(queue)
        if start is not None:
            yield start
