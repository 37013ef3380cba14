"""A process's side of introspection: it answers what only it knows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain, islice

import msgspec

from ...ids import owner_of
from ...introspection.events import ENDED
from ...introspection.metric_table import MetricTable
from ...introspection.rows import ExecutionState, ObjectState, ProcessReport, WaitState, unix_ms
from ..protocol import messages as m
from ..protocol.connection import Connection
from .actor_calls import ActorCalls
from .call_reports import call_counts, call_rows, task_counts, task_rows
from .completion import Arrivals
from .links import Links
from .objects import Record, size_of, spans_of
from .task_calls import TaskCalls
from .values import Values
from .waits import Waits

_MOST_NAMED = 5


class Running:
    """Tasks and calls that run here.

    Attributes:
        begun: their names, and since when (`time.perf_counter` seconds), by task.
        untaken: those of them that yield values and wait until these are taken: how many there are.
    """

    def __init__(self) -> None:
        self.begun: dict[bytes, tuple[str, float]] = {}
        self.untaken: dict[bytes, int] = {}


class Reporting:
    """What one process can say of itself.

    Args:
        links, values: the process's connections and objects.
        waits, arrivals: its threads that wait, and what its tasks `await`.
        tasks, actor_calls: what it has submitted and has not ended.

    Attributes:
        running: what runs here.
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
        self.running, self.metrics = Running(), MetricTable()
        self._tasks, self._actor_calls = tasks, actor_calls

    def on_report_state(self, node: Connection, message: m.ReportState) -> None:
        """Event: the node asks how this process is."""
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
        records, running = self._values.objects.records, self.running
        report = self._empty()
        report.objects_total = len(records)
        awaited = self._arrivals.awaited()
        report.executing = [
            ExecutionState(
                task_id=task.hex(),
                name=name,
                start_time_ms=unix_ms(began) or 0,
                awaits=[ref.hex() for ref in sorted(awaited.get(task, ()))[:_MOST_NAMED]],
                untaken=running.untaken.get(task, 0),
            )
            for task, (name, began) in list(running.begun.items())
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
