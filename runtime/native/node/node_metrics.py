"""What the node does for metrics: it keeps what dead processes had counted, and answers Prometheus."""

from __future__ import annotations

import msgspec

from ...introspection.diagnosis import Diagnosis
from ...introspection.metric_table import merged
from ...introspection.prometheus import render
from ...introspection.reports import MetricReport, NodeReport, ProcessReport
from ..protocol import messages as m


class Retired:
    """The counts of processes that are gone, as they last told them: a sum must not fall when one of them ends.

    Attributes:
        metrics: their counters and histograms.
    """

    def __init__(self) -> None:
        self.metrics: list[MetricReport] = []
        self._last: dict[m.ProcessId, list[MetricReport]] = {}

    def note(self, report: ProcessReport) -> None:
        """Event: a process has told its metrics."""
        if report.metrics:
            self._last[report.process] = [metric for metric in report.metrics if metric.kind != "gauge"]

    def process_died(self, process: m.ProcessId) -> None:
        """Event: a process is gone."""
        self.metrics = merged([*self.metrics, *self._last.pop(process, [])])


def scraped(node: NodeReport, payloads: list[bytes], silent: list[m.ProcessId]) -> str:
    """Return the text for Prometheus, from what the node and its processes report."""
    node.processes = [msgspec.msgpack.decode(payload, type=ProcessReport) for payload in payloads]
    node.silent = silent
    return render(Diagnosis([node]))
