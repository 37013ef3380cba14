"""What ran when, as a Chrome trace; and spans of the user's own in it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from ..core.engine import current_engine
from ..core.reports.events import ENDED, RAN, SPAN, UP
from ..core.reports.rows import DEFAULT_LIMIT, NodeReport
from .asking import ask

_Span = tuple[float, float, str, str, dict[str, Any]]


def timeline(filename: str | None = None, *, address: str | None = None) -> list[dict[str, Any]]:
    """Return what ran when, as events of a Chrome trace (ui.perfetto.dev and chrome://tracing show it).

    One row for each process, with the tasks and calls that ran there and the spans of `profile`; calls that ran at the
    same time in one process have rows of their own. Processes remember their last 10 000 events.

    Args:
        filename: write the events there as JSON too.
        address: name of the runtime's session; default: that of this process, or else the newest on this machine.
    """
    events: list[dict[str, Any]] = []
    for number, node in enumerate(ask(["events"], DEFAULT_LIMIT, address), 1):
        events += _node_events(node, number)
    if filename is not None:
        with open(filename, "w", encoding="utf-8") as file:
            json.dump(events, file)
    return events


class profile:  # noqa: N801  # used as a function: `with profile("load"):`
    """Context manager: what happens inside is shown under this name on the timeline, in this process's row.

    Args:
        name: what to call it.
        extra_data: further facts to show with it.
    """

    def __init__(self, name: str, extra_data: Mapping[str, str] | None = None) -> None:
        self._name, self._extra, self._began = name, dict(extra_data or {}), 0.0

    def __enter__(self) -> profile:
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        detail = (self._name, self._began, self._extra, threading.current_thread().name)
        current_engine().note((time.monotonic(), SPAN, b"", detail))


def _node_events(report: NodeReport, number: int) -> Iterator[dict[str, Any]]:
    node = f"node {report.node.node_id} on {report.node.node_name}"
    yield {"ph": "M", "name": "process_name", "pid": number, "args": {"name": node}}
    for row, (title, spans) in enumerate(_rows(report), 1):
        for lane, mine in enumerate(_lanes(spans)):
            thread = row * 1000 + lane
            name = title if lane == 0 else f"{title} ({lane + 1})"
            yield {"ph": "M", "name": "thread_name", "pid": number, "tid": thread, "args": {"name": name}}
            for began, ended, what, category, arguments in mine:
                yield {
                    "ph": "X",
                    "name": what,
                    "cat": category,
                    "ts": (report.epoch + began) * 1e6,
                    "dur": max(0.0, ended - began) * 1e6,
                    "pid": number,
                    "tid": thread,
                    "args": arguments,
                }


def _rows(report: NodeReport) -> Iterator[tuple[str, list[_Span]]]:
    """Yield the title and the spans of each process, the living and those that are remembered."""
    titles = {key.hex(): f"pid {detail[0]} {detail[1]}" for _, kind, key, detail in report.events if kind == UP}
    titles |= {worker.worker_id: f"pid {worker.pid} {worker.title}" for worker in report.workers if worker.pid}
    spans: dict[str, dict[Any, _Span]] = {process: {} for process in titles}
    now = report.now_ms / 1000 - report.epoch
    told: set[str] = set()
    for process in report.processes:
        mine = spans.setdefault(process.process_id, {})
        for item in process.executing:
            told.add(item.task_id)
            began = item.start_time_ms / 1000 - report.epoch
            mine[item.task_id] = (began, now, item.name, "running", {"task_id": item.task_id})
        for when, kind, task, detail in process.events:
            if kind == RAN:
                told.add(task.hex())
                mine[task, when] = (detail[1], when, detail[0], "task", {"task_id": task.hex()})
            elif kind == SPAN:
                mine[when, detail[0]] = (detail[1], when, detail[0], "span", {"thread": detail[3], **detail[2]})
    for process in report.processes:
        # What ran in processes that are gone, only those remember who submitted it.
        for when, kind, task, detail in process.events:
            worker = detail[3].hex() if kind == ENDED and detail[3] else ""
            if worker in spans and task.hex() not in told and detail[6]:
                name = f"{detail[0]}.{detail[1]}" if detail[2] else detail[1]
                spans[worker][task, when] = (when - detail[6], when, name, "task", {"task_id": task.hex()})
    for process_id, mine in sorted(spans.items()):
        if mine:
            yield titles.get(process_id, "a process"), sorted(mine.values(), key=lambda span: (span[0], -span[1]))


def _lanes(spans: list[_Span]) -> list[list[_Span]]:
    """Distribute spans so that in each lane they follow or enclose each other: a trace's row can show no more."""
    lanes: list[tuple[list[_Span], list[float]]] = []
    for span in spans:
        found = next((lane for lane in lanes if _fits(span, lane[1])), None)
        if found is None:
            found = ([], [])
            lanes.append(found)
        found[0].append(span)
        found[1].append(span[1])
    return [lane for lane, _ in lanes]


def _fits(span: _Span, open_ends: list[float]) -> bool:
    while open_ends and open_ends[-1] <= span[0]:
        open_ends.pop()
    return not open_ends or span[1] <= open_ends[-1]
