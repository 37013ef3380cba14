"""Rows for the tasks and calls that a process owns and that have not ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

from ...introspection.reports import TaskReport
from ...resources import in_amounts
from .calls import Pending

if TYPE_CHECKING:
    from .actor_links import Link
    from .client import Client
    from .task_kinds import Kind

TASK, CALL, START = "NORMAL_TASK", "ACTOR_TASK", "ACTOR_CREATION_TASK"
ARGUMENTS, QUEUED, SENT = "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER"


def missing_slots(client: Client, pending: Pending) -> list[bytes]:
    """Return the arguments of a call that have no value yet."""
    if not pending.missing:
        return []
    records = client.objects.records
    return [ref.id for ref in pending.slots if records[ref.id].value is None]


def _row(pending: Pending, kind: str, state: str, name: str = "") -> TaskReport:
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


def task_rows(client: Client, kinds: Iterable[Kind], awaiting: Iterable[tuple[Kind, Pending]]) -> Iterator[TaskReport]:
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
        row.demand, row.group, row.missing = in_amounts(kind.demand), _group_of(kind), missing_slots(client, pending)
        yield row


def _group_of(kind: Kind) -> bytes:
    return b"" if kind.placement is None else kind.placement.group


def task_groups(kinds: Iterable[Kind], awaiting: Iterable[tuple[Kind, Pending]]) -> Iterator[TaskReport]:
    """Yield how many tasks there are of each name, state and demand."""
    for kind in kinds:
        sent = [pending for lease in kind.leases.values() for pending in lease.inflight.values()]
        mine = [pending for other, pending in awaiting if other is kind] if awaiting else []
        for state, tasks in ((SENT, sent), (QUEUED, kind.queue), (ARGUMENTS, mine)):
            yield from _counted(tasks, TASK, state, demand=in_amounts(kind.demand), group=_group_of(kind))


def _counted(
    tasks: Iterable[Pending],
    kind: str,
    state: str,
    *,
    name_of: Callable[[Pending], str] = attrgetter("name"),
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


def _call_name(pending: Pending) -> str:
    told = None if pending.extras is None else pending.extras.told
    return (told and told.name) or f"{pending.link.name}.{pending.name}"


def call_rows(client: Client, links: Iterable[Link]) -> Iterator[TaskReport]:
    """Yield calls of actors' methods, and actors that are still to be started."""
    for link in links:
        for pending in link.inflight.values():
            row = _row(pending, CALL, SENT, _call_name(pending))
            row.actor, row.worker = link.key, link.process or b""
            yield row
        ahead = b""
        for place, pending in enumerate(link.queue, 1):
            row = _row(pending, CALL, ARGUMENTS if pending.missing else QUEUED, _call_name(pending))
            row.actor, row.place, row.ahead = link.key, place, ahead
            row.missing = missing_slots(client, pending)
            ahead = pending.task
            yield row
        if link.constructor is not None and link.state != "alive":
            yield _start_row(client, link)


def _start_row(client: Client, link: Link) -> TaskReport:
    assert link.constructor is not None
    pending = link.constructor.arguments
    row = _row(pending, START, ARGUMENTS if pending.missing else QUEUED)
    row.actor, row.missing = link.key, missing_slots(client, pending)
    row.demand, row.retries = in_amounts(link.constructor.options.demand), link.constructor.options.max_restarts
    return row


def call_groups(links: Iterable[Link]) -> Iterator[TaskReport]:
    """Yield how many calls there are of each actor, method and state."""
    for link in links:
        ready = [pending for pending in link.queue if not pending.missing]
        unready = [pending for pending in link.queue if pending.missing] if len(ready) < len(link.queue) else []
        for state, calls in ((SENT, link.inflight.values()), (QUEUED, ready), (ARGUMENTS, unready)):
            yield from _counted(list(calls), CALL, state, name_of=_call_name, demand={}, actor=link.key)
        if link.constructor is not None and link.state != "alive":
            pending = link.constructor.arguments
            state = ARGUMENTS if pending.missing else QUEUED
            demand = in_amounts(link.constructor.options.demand)
            yield TaskReport(b"", pending.name, START, state, pending.submitted, demand=demand, actor=link.key)
