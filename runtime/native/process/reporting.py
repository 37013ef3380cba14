"""A process's side of introspection: it answers what only it knows, and asks the node how everything is."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ...exceptions import NodeDiedError
from ...introspection.reports import ExecutingReport, NodeReport, ObjectReport, ProcessReport, TaskReport, WaitReport
from ...introspection.story_events import ENDED
from ..driver.observer import ANSWER_SECONDS, unpack
from ..protocol import messages as m
from ..protocol.connection import Connection
from .objects import Record, owner_of, size_of, spans_of
from .reactor import Waiter

if TYPE_CHECKING:
    from .client import Client

_MOST_NAMED = 5
_GRACE_SECONDS = 5.0


class Reporting:
    """What one process can say of itself.

    Args:
        client: the process's core.
        tasks: yields the tasks that it owns and that have not ended, those that were sent first.
        groups: yields the same, counted by name and state.
    """

    def __init__(
        self, client: Client, tasks: Callable[[], Iterable[TaskReport]], groups: Callable[[], Iterable[TaskReport]]
    ) -> None:
        self._client, self._tasks, self._groups = client, tasks, groups
        self._questions: dict[int, Callable[[m.State | None], None]] = {}
        self._numbers = itertools.count(1)
        client.handlers[m.ReportState] = self._on_report_state
        client.handlers[m.State] = self._on_state
        client.on_node_lost.append(self._on_node_lost)

    # Answering --------------------------------------------------------------------------------------------------

    def _on_report_state(self, node: Connection, message: m.ReportState) -> None:
        self._client.settle_drops()
        report = self.report(message.sections, message.limit)
        node.send(m.StateReport(message.question, msgspec.msgpack.encode(report), bool(report.metrics)))

    def say_last(self) -> None:
        """Tell the node what was counted here, since this process ends."""
        client = self._client
        if client.metrics:
            report = ProcessReport(client.me, os.getpid(), metrics=client.metrics.report())
            client.node.send(m.StateReport(0, msgspec.msgpack.encode(report), True))

    def report(self, sections: Sequence[str], limit: int) -> ProcessReport:
        """Return what this process knows; called under the lock."""
        client = self._client
        records = client.objects.records
        report = ProcessReport(client.me, os.getpid(), objects_total=len(records))
        awaited = client.arrivals.awaited()
        report.executing = [
            ExecutingReport(task, *what, sorted(awaited.get(task, ()))[:_MOST_NAMED], client.untaken.get(task, 0))
            for task, what in list(client.executing.items())
        ]
        report.waits = [self._wait(*wait) for wait in list(client.waits.values())]
        report.groups = list(self._groups())
        report.tasks_total = sum(group.count for group in report.groups)
        if "tasks" in sections:
            report.tasks = list(itertools.islice(self._tasks(), limit))
        if "objects" in sections:
            report.objects = [self._object(*item) for item in itertools.islice(records.items(), limit)]
        if "events" in sections:
            report.events = list(client.events)
        elif "ended" in sections:
            report.events = [event for event in list(client.events) if event[1] == ENDED]
        if "metrics" in sections:
            report.metrics = client.metrics.report()
            report.object_bytes = sum(
                size_of(record.value)
                for object_id, record in records.items()
                if record.value is not None and owner_of(object_id) == client.me
            )
        return report

    def _wait(self, thread: str, since: float, refs: Sequence[bytes], count: int) -> WaitReport:
        records = self._client.objects.records
        missing = [ref for ref in refs if (record := records.get(ref)) is None or record.value is None]
        arrived = len(refs) - len(missing)
        return WaitReport(thread, since, max(0, count - arrived), len(refs), missing[:_MOST_NAMED])

    def _object(self, object_id: bytes, record: Record) -> ObjectReport:
        client = self._client
        value = record.value
        site = client.sites.get(object_id, "") if client.sites is not None else ""
        where = "actor" if object_id in client.on_gone else place_of(value)
        size = 0 if value is None else size_of(value)
        return ObjectReport(object_id, where, size, record.local, list(record.borrowers or ()), site)

    # Asking -----------------------------------------------------------------------------------------------------

    def ask(self, sections: Sequence[str], limit: int, seconds: float = ANSWER_SECONDS) -> list[NodeReport]:
        """Return what all nodes say.

        Raises:
            NodeDiedError: the node is gone.
        """
        waiter = Waiter()
        box: list[m.State | None] = []

        def answered(answer: m.State | None) -> None:
            box.append(answer)
            waiter.finish()

        self.ask_then(sections, limit, seconds, answered)
        client = self._client
        client.reactor.wait(waiter, time.monotonic() + seconds + _GRACE_SECONDS)
        if not box or box[0] is None:
            client.check()
            raise NodeDiedError(f"the node has not answered within {seconds + _GRACE_SECONDS} s")
        return unpack(box[0])

    def ask_then(
        self, sections: Sequence[str], limit: int, seconds: float, then: Callable[[m.State | None], None]
    ) -> None:
        """Ask the node; `then` is called with its answer, or None if it dies, in whichever thread reads."""
        client = self._client
        with client.lock:
            client.check()
            client.settle_drops()
            number = next(self._numbers)
            self._questions[number] = then
            client.node.send(m.AskState(number, list(sections), limit, seconds))

    def _on_state(self, node: Connection, message: m.State) -> None:
        self._questions.pop(message.question)(message)

    def _on_node_lost(self) -> None:
        questions, self._questions = self._questions, {}
        for then in questions.values():
            then(None)


def place_of(value: m.Value | None) -> str:
    """Return where a value is, in one word."""
    if value is None:
        return "waiting"
    if value.failed:
        return "failure"
    spans = spans_of(value)
    if not spans:
        return "message"
    return "spilled" if all(span.on_disk for span in spans) else "shared memory"
