"""Rows for the tasks and calls that a process owns and that have not ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter

from ...introspection.reports import TaskReport
from ...resources import in_amounts
from .actor_queues import ActorQueue
from .objects import Record
from .pending import PendingCall
from .task_kinds import Kind

Records = Mapping[bytes, Record]
TASK, CALL, START = "NORMAL_TASK", "ACTOR_TASK", "ACTOR_CREATION_TASK"
ARGUMENTS, QUEUED, SENT = "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER"


def missing_slots(records: Records, pending: PendingCall) -> list[bytes]:
    """Return the arguments of a call that have no value yet."""
    if not pending.missing:
        return []
    return [ref.id for ref in pending.slots if records[ref.id].value is None]


def _row(pending: PendingCall, kind: str, state: str, name: str = "") -> TaskReport:
    return TaskReport(
        pending.task,
        name or pending.name,
        kind,
        state,
        pending.submitted,
        pending.retries,
        num_returns=len(pending.returns),
        sent=pending.sent,
        promised=[] if pending.stream is None else pending.stream.promised,
    )


def task_rows(
    records: Records, kinds: Iterable[Kind], awaiting: Iterable[tuple[Kind, PendingCall]]
) -> Iterator[TaskReport]:
    """Yield the tasks: those sent, those that wait for a worker, those that wait for arguments."""
    kinds = list(kinds)
    for kind in kinds:
        for lease in kind.leases.values():
            for pending in lease.inflight.values():
                row = _row(pending, TASK, SENT)
                row.demand, row.group, row.worker = in_amounts(kind.demand), _group_of(kind), lease.worker
                yield row
    for kind in kinds:
        for place, pending in enumerate(kind.queue, 1):
            row = _row(pending, TASK, QUEUED)
            row.demand, row.group, row.place = in_amounts(kind.demand), _group_of(kind), place
            yield row
    for kind, pending in awaiting:
        row = _row(pending, TASK, ARGUMENTS)
        row.demand, row.group, row.missing = in_amounts(kind.demand), _group_of(kind), missing_slots(records, pending)
        yield row


def _group_of(kind: Kind) -> bytes:
    return b"" if kind.placement is None else kind.placement.group


def task_groups(kinds: Iterable[Kind], awaiting: Iterable[tuple[Kind, PendingCall]]) -> Iterator[TaskReport]:
    """Yield how many tasks there are of each name, state and demand."""
    for kind in kinds:
        sent = [pending for lease in kind.leases.values() for pending in lease.inflight.values()]
        mine = [pending for other, pending in awaiting if other is kind] if awaiting else []
        for state, tasks in ((SENT, sent), (QUEUED, kind.queue), (ARGUMENTS, mine)):
            yield from _counted(tasks, TASK, state, demand=in_amounts(kind.demand), group=_group_of(kind))


def _counted(
    tasks: Iterable[PendingCall],
    kind: str,
    state: str,
    *,
    name_of: Callable[[PendingCall], str] = attrgetter("name"),
    demand: dict[str, float],
    actor: bytes = b"",
    group: bytes = b"",
) -> Iterator[TaskReport]:
    counts = Counter(map(name_of, tasks))
    oldest: dict[str, float] = {}
    for pending in tasks if counts else ():
        oldest.setdefault(name_of(pending), pending.submitted)  # they are in the order of submission
    for name, count in counts.items():
        yield TaskReport(b"", name, kind, state, oldest[name], demand=demand, actor=actor, count=count, group=group)


def _call_name(pending: PendingCall) -> str:
    told = None if pending.extras is None else pending.extras.told
    return (told and told.name) or f"{pending.actor.name}.{pending.name}"


def call_rows(records: Records, queues: Iterable[ActorQueue]) -> Iterator[TaskReport]:
    """Yield calls of actors' methods, and actors that are still to be started."""
    for queue in queues:
        for pending in queue.inflight.values():
            row = _row(pending, CALL, SENT, _call_name(pending))
            row.actor, row.worker = queue.key, queue.process or b""
            yield row
        ahead = b""
        for place, pending in enumerate(queue.waiting, 1):
            row = _row(pending, CALL, ARGUMENTS if pending.missing else QUEUED, _call_name(pending))
            row.actor, row.place, row.ahead = queue.key, place, ahead
            row.missing = missing_slots(records, pending)
            ahead = pending.task
            yield row
        if queue.constructor is not None and queue.state != "alive":
            yield _start_row(records, queue)


def _start_row(records: Records, queue: ActorQueue) -> TaskReport:
    assert queue.constructor is not None
    pending = queue.constructor.arguments
    row = _row(pending, START, ARGUMENTS if pending.missing else QUEUED)
    row.actor, row.missing = queue.key, missing_slots(records, pending)
    row.demand, row.retries = in_amounts(queue.constructor.options.demand), queue.constructor.options.max_restarts
    return row


def call_groups(queues: Iterable[ActorQueue]) -> Iterator[TaskReport]:
    """Yield how many calls there are of each actor, method and state."""
    for queue in queues:
        ready = [pending for pending in queue.waiting if not pending.missing]
        unready = [pending for pending in queue.waiting if pending.missing] if len(ready) < len(queue.waiting) else []
        for state, calls in ((SENT, queue.inflight.values()), (QUEUED, ready), (ARGUMENTS, unready)):
            yield from _counted(list(calls), CALL, state, name_of=_call_name, demand={}, actor=queue.key)
        if queue.constructor is not None and queue.state != "alive":
            pending = queue.constructor.arguments
            state = ARGUMENTS if pending.missing else QUEUED
            demand = in_amounts(queue.constructor.options.demand)
            yield TaskReport(b"", pending.name, START, state, pending.submitted, demand=demand, actor=queue.key)
