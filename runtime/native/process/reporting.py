"""A process's side of reports: it answers what only it knows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import attrgetter

import msgspec

from ...core.ids import owner_of
from ...core.reports.events import ENDED
from ...core.reports.metric_table import MetricTable
from ...core.reports.rows import ExecutionState, ObjectState, ProcessReport, TaskState, WaitState, unix_ms
from ...core.resources.amounts import in_amounts
from ..protocol import messages as m
from ..protocol.connection import Connection
from .actor_calls import ActorCalls, ActorQueue
from .calls import PendingCall
from .completion import Arrivals
from .links import Links
from .objects import Record, size_of, spans_of
from .task_calls import TaskCalls
from .task_queues import TaskQueue
from .values import Values
from .waits import Waits

_MOST_NAMED = 5
Records = Mapping[bytes, Record]
TASK, CALL, START = "NORMAL_TASK", "ACTOR_TASK", "ACTOR_CREATION_TASK"
ARGUMENTS, QUEUED, SENT = "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER"


class Reporting:
    """What one process can say of itself.

    Attributes:
        begun: tasks and calls that run here: their names, and since when (`time.perf_counter` seconds), by task.
        untaken: those of them that yield values and wait until these are taken: how many there are.
        metrics: the program's own.
    """

    def __init__(  # noqa: PLR0917  # put together in one place
        self,
        links: Links,
        values: Values,
        waits: Waits,
        arrivals: Arrivals,
        tasks: TaskCalls,
        actor_calls: ActorCalls,
    ) -> None:
        self._links, self._values, self._waits, self._arrivals = links, values, waits, arrivals
        self.begun: dict[bytes, tuple[str, float]] = {}
        self.untaken: dict[bytes, int] = {}
        self.metrics = MetricTable()
        self._tasks, self._actor_calls = tasks, actor_calls

    def on_report_state(self, node: Connection, message: m.ReportState) -> None:
        self._values.settle_drops()
        report = self.report(message.sections, message.limit)
        node.send(m.StateReport(message.question, msgspec.msgpack.encode(report), bool(report.metrics)))

    def say_last(self) -> None:
        """Send the last metrics to the node, since this process ends."""
        if self.metrics:
            report = self._empty()
            report.metrics = self.metrics.report()
            self._links.node.send(m.StateReport(0, msgspec.msgpack.encode(report), True))

    def _empty(self) -> ProcessReport:
        return ProcessReport(process_id=self._links.me.hex(), pid=os.getpid())

    def report(self, sections: Sequence[str], limit: int) -> ProcessReport:
        """Return what this process knows; called under the lock."""
        records = self._values.objects.records
        report = self._empty()
        report.objects_total = len(records)
        awaited = self._arrivals.awaited()
        report.executing = [
            ExecutionState(
                task_id=task.hex(),
                name=name,
                start_time_ms=unix_ms(began) or 0,
                awaits=[ref.hex() for ref in sorted(awaited.get(task, ()))[:_MOST_NAMED]],
                untaken=self.untaken.get(task, 0),
            )
            for task, (name, began) in list(self.begun.items())
        ]
        report.waits = [self._wait(*wait) for wait in list(self._waits.running.values())]
        queues, awaiting = self._tasks.queues.by_key.values(), self._tasks.awaiting.values()
        actors = self._actor_calls.queues.values()
        report.counted = [*task_counts(queues, awaiting), *call_counts(actors)]
        report.tasks_total = sum(row.count for row in report.counted)
        if "tasks" in sections:
            report.tasks = list(islice(chain(task_rows(records, queues, awaiting), call_rows(records, actors)), limit))
        if "objects" in sections:
            lifetimes = {queue.lifetime for queue in self._actor_calls.queues.values()}
            report.objects = [
                self._object(object_id, record, object_id in lifetimes)
                for object_id, record in islice(records.items(), limit)
            ]
        if "events" in sections:
            report.events = list(self._links.events)
        elif "ended" in sections:
            report.events = [event for event in list(self._links.events) if event[1] == ENDED]
        if "metrics" in sections:
            report.metrics = self.metrics.report()
            report.object_bytes = sum(
                size_of(record.value)
                for object_id, record in records.items()
                if record.value is not None and owner_of(object_id) == self._links.me
            )
        return report

    def _wait(self, thread: str, since: float, refs: Sequence[bytes], count: int) -> WaitState:
        records = self._values.objects.records
        missing = [ref for ref in refs if (record := records.get(ref)) is None or record.value is None]
        arrived = len(refs) - len(missing)
        return WaitState(
            pid=os.getpid(),
            thread=thread,
            since_ms=unix_ms(since) or 0,
            wanted=max(0, count - arrived),
            total=len(refs),
            missing=[ref.hex() for ref in missing[:_MOST_NAMED]],
        )

    def _object(self, object_id: bytes, record: Record, is_actor: bool) -> ObjectState:
        value = record.value
        return ObjectState(
            object_id=object_id.hex(),
            where="actor" if is_actor else _place_of(value),
            object_size=0 if value is None else size_of(value),
            local_references=record.local,
            borrower_ids=[borrower.hex() for borrower in record.borrowers or ()],
            call_site=self._values.site_of(object_id),
        )


def _place_of(value: m.Value | None) -> str:
    """Return where a value is, in one word."""
    if value is None:
        return "waiting"
    if value.failed:
        return "failure"
    spans = spans_of(value)
    if not spans:
        return "message"
    return "spilled" if all(span.on_disk for span in spans) else "shared memory"


# Rows for the tasks and calls that a process owns and that have not ended --------------------------------------------


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
