"""The node's side of reports: it asks its processes, waits for their answers a moment, and adds what it knows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ...core.ids import PROCESS_BYTES, node_of
from ...core.reports.metric_table import merged
from ...core.reports.rows import MetricState, NodeReport, NodeState, ProcessReport, WorkerState, unix_ms
from ...core.resources.amounts import in_amounts
from ..protocol import messages as m
from ..protocol.loop import Loop
from .cluster import Cluster
from .known_process import Process
from .storage import Views

_MOST_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class _Question:
    """What somebody has asked, and `send`s the answer to; who is still awaited, and what the others say."""

    message: m.AskState
    send: Callable[[m.State], object]
    awaited: set[m.ProcessId | m.NodeId]
    reports: list[bytes] = field(default_factory=list)
    others: list[m.State] = field(default_factory=list)


class Retired:
    """The counts of processes that are gone, as they last told them: a sum must not fall when one of them ends.

    Attributes:
        metrics: their counters and histograms.
    """

    def __init__(self) -> None:
        self.metrics: list[MetricState] = []
        self._last: dict[m.ProcessId, list[MetricState]] = {}

    def note(self, process: m.ProcessId, metrics: list[MetricState]) -> None:
        """Event: a process has told its metrics."""
        self._last[process] = [metric for metric in metrics if metric.kind != "gauge"]

    def process_died(self, process: m.ProcessId) -> None:
        """Event: a process is gone."""
        self.metrics = merged([*self.metrics, *self._last.pop(process, [])])


class NodeReports:
    """Collects the reports of all processes of the node.

    Args:
        processes: those that live.
        describe: returns the node's own report, with these sections.

    Attributes:
        retired: what processes that are gone had counted.
    """

    def __init__(
        self,
        loop: Loop,
        processes: dict[bytes, Process],
        describe: Callable[[list[str]], NodeReport],
        cluster: Cluster,
    ) -> None:
        self._loop, self._processes, self._describe, self._cluster = loop, processes, describe, cluster
        self._questions: dict[int, _Question] = {}
        self._passed_on: dict[int, Callable[[m.State], object]] = {}  # to the head; what its answers are given to
        self.retired = Retired()
        self._numbers = 0

    def observe(self, send: Callable[[m.State], object], message: m.AskState) -> None:
        """Have `send` called with the state of all nodes: the head puts it together."""
        if self._cluster.is_head:
            self.answer(send, message)
        else:
            self._numbers += 1
            self._passed_on[self._numbers] = send
            self._cluster.tell_head(m.AskState(self._numbers, message.sections, message.limit, message.seconds))

    def answer(self, send: Callable[[m.State], object], message: m.AskState) -> None:
        """Ask all processes and nodes; send the state, when all have answered or time is over, to whoever asked."""
        self._numbers += 1
        number = self._numbers
        seconds = message.seconds if 0 <= message.seconds <= _MOST_SECONDS else _MOST_SECONDS
        asked = {process.id for process in self._processes.values() if process.connection is not None}
        others = self._cluster.spread(m.AskState(number, message.sections, message.limit, seconds))
        self._questions[number] = question = _Question(message, send, asked.union(others))
        for process_id in asked:
            connection = self._processes[process_id].connection
            assert connection is not None
            connection.send(m.ReportState(number, message.sections, message.limit))
        if question.awaited:
            self._loop.call_later(seconds, lambda: self._close(number))
        else:
            self._close(number)

    def on_report(self, process: m.ProcessId, message: m.StateReport) -> None:
        """Event: a process has answered."""
        report = msgspec.msgpack.decode(message.payload, type=ProcessReport)  # raises if it is none
        if message.metrics:
            self.retired.note(process, report.metrics)
        question = self._questions.get(message.question)
        if question is not None and process in question.awaited:  # else it is too late
            question.reports.append(message.payload)
            self._no_longer(message.question, question, process)

    def on_state(self, node: m.NodeId, message: m.State) -> None:
        send = self._passed_on.pop(message.question, None)
        if send is not None:
            send(message)
            return
        question = self._questions.get(message.question)
        if question is not None and node in question.awaited:
            question.others.append(message)
            self._no_longer(message.question, question, node)

    def died(self, process: m.ProcessId | m.NodeId) -> None:
        """Event: a process or node is gone, and will not answer."""
        self.retired.process_died(process)
        for number, question in list(self._questions.items()):
            self._no_longer(number, question, process)

    def _no_longer(self, number: int, question: _Question, process: m.ProcessId | m.NodeId) -> None:
        question.awaited.discard(process)
        if not question.awaited:
            self._close(number)

    def _close(self, number: int) -> None:
        question = self._questions.pop(number, None)
        if question is not None:
            silent = sorted(process for process in question.awaited if len(process) == PROCESS_BYTES)
            own = msgspec.msgpack.encode(self._describe(question.message.sections))
            question.send(m.State(question.message.question, own, question.reports, silent, question.others))


def describe_node(node: m.NodeInfo, session: str, *, is_head: bool = False, dead: bool = False) -> NodeState:
    """Return what is known of a node, as long as nothing runs there."""
    return NodeState(
        node_id=node.id.hex(),
        node_name=node.host,
        state="DEAD" if dead else "ALIVE",
        pid=node.pid,
        session=session,
        is_head_node=is_head,
        resources_total=in_amounts(node.resources),
    )


def describe_worker(process: Process, made: int, views: Views | None) -> WorkerState:
    """Return what a node knows of one of its processes, and of the store's memory that it has made and views."""
    cpu_seconds, started, memory = usage_of(process.pid)
    lease = process.lease
    return WorkerState(
        worker_id=process.id.hex(),
        pid=process.pid or None,
        worker_type="DRIVER" if process.driver else "WORKER" if process.actor is None else "ACTOR",
        title=process.title,
        is_alive=(process.driver or process.registered) and not process.ended,
        node_id=node_of(process.id).hex(),
        actor_id=None if process.actor is None else process.actor.actor.hex(),
        blocked=lease is not None and lease.blocked,
        required_resources=in_amounts(lease.held()) if lease is not None else {},
        cpu_seconds=cpu_seconds,
        memory=memory,
        shared_memory=made,
        viewed_memory=0 if views is None else views.size,
        start_time_ms=unix_ms(started),
    )


def usage_of(pid: int) -> tuple[float, float, int]:
    """Return a process's CPU seconds, its start (monotonic seconds) and its resident bytes; zeros if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0, 0.0, 0
    # The kernel counts starts from boot, sleep included; monotonic time leaves sleep out.
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[19]) / _TICKS - asleep, int(fields[21]) * _PAGE
