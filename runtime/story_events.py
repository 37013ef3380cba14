"""The kinds of events that processes remember, and how they are read.

("ended", task, (class, name, actor, worker, submitted, sent, error))     by its owner
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .reports import Event, TaskReport

ENDED = "ended"


def ended_tasks(events: Iterable[Event]) -> Iterator[TaskReport]:
    """Yield rows of the tasks that have ended, as their owner remembers them."""
    for when, kind, task, detail in events:
        if kind == ENDED:
            class_name, name, actor, worker, submitted, sent, error = detail
            type_, name = ("ACTOR_TASK", f"{class_name}.{name}") if actor else ("NORMAL_TASK", name)
            state = "FAILED" if error else "FINISHED"
            row = TaskReport(task, name, type_, state, submitted, actor=actor, worker=worker, sent=sent)
            row.started, row.ended, row.error = sent, when, error
            yield row
