"""Rows as they are shown: as those who know the things filled them in, and what only all rows together tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from ..core.reports.diagnosis import Diagnosis
from ..core.reports.events import ENDED, Event
from ..core.reports.rows import (
    NODE_DIGITS,
    PROCESS_DIGITS,
    ActorState,
    ObjectState,
    PlacementGroupState,
    TaskState,
    WaitState,
    WorkerState,
)

_ORDER = ("RUNNING", "SUBMITTED_TO_WORKER", "PENDING_NODE_ASSIGNMENT", "PENDING_ARGS_AVAIL")


def tasks(diagnosis: Diagnosis) -> list[TaskState]:
    """Return tasks that have not ended, running ones first, then those that have, the latest first."""
    living = [explained(diagnosis, row) for row in diagnosis.tasks.values()]
    living.sort(key=lambda row: _ORDER.index(row.state) if row.state in _ORDER else len(_ORDER))
    ended = [
        explained(diagnosis, row)
        for node in diagnosis.nodes
        for process in node.processes
        for row in _ended(process.events, node.epoch)
    ]
    return living + sorted(ended, key=lambda row: -(row.end_time_ms or 0))


def _ended(events: Iterable[Event], epoch: float) -> Iterator[TaskState]:
    """Yield rows of the tasks that have ended, as their owner remembers them."""

    def unix_ms(moment: float) -> int | None:
        return int((epoch + moment) * 1000) if moment else None

    for when, kind, task, detail in events:
        if kind == ENDED:
            class_name, name, actor, worker, submitted, sent, seconds, num_returns, error = detail
            yield TaskState(
                task_id=task.hex(),
                name=f"{class_name}.{name}" if actor else name,
                type="ACTOR_TASK" if actor else "NORMAL_TASK",
                state="FAILED" if error else "FINISHED",
                actor_id=actor.hex() or None,
                worker_id=worker.hex() if worker else None,
                num_returns=num_returns,
                creation_time_ms=unix_ms(submitted),
                sent_time_ms=unix_ms(sent),
                start_time_ms=unix_ms(when - seconds if seconds else sent),
                end_time_ms=unix_ms(when),
                error_type=error or None,
            )


def explained(diagnosis: Diagnosis, row: TaskState) -> TaskState:
    """Return a task's row with its state now, why it waits, and where it is."""
    running = diagnosis.executing.get(row.task_id)
    worker = row.worker_id if running is None else running[0]
    state, reason, waits_for = diagnosis.judge(row)
    return replace(
        row,
        state=state,
        reason=reason,
        waits_for=waits_for,
        owner_pid=diagnosis.pid(row.task_id[:PROCESS_DIGITS]),
        node_id=worker[:NODE_DIGITS] if worker else None,
        worker_id=worker,
        worker_pid=diagnosis.pid(worker),
        start_time_ms=row.start_time_ms if running is None else running[1].start_time_ms,
    )


def actors(diagnosis: Diagnosis) -> Iterator[ActorState]:
    """Yield all actors."""
    calls: Counter[str | None] = Counter()
    for process in diagnosis.processes.values():
        for row in process.counted:
            if row.type == "ACTOR_TASK":
                calls[row.actor_id] += row.count
    for actor in diagnosis.actors.values():
        state, reason, waits_for = diagnosis.judge_actor(actor)
        yield replace(
            actor,
            state=state,
            reason=reason,
            waits_for=waits_for,
            pid=diagnosis.pid(actor.worker_id),
            owner_pid=diagnosis.pid(actor.owner_id),
            pending_calls=calls[actor.actor_id],
        )


def objects(diagnosis: Diagnosis) -> Iterator[ObjectState]:
    """Yield all objects once: as their owner sees them, or, if that is gone, as one of the others does."""
    owned: dict[str, ObjectState] = {}
    borrowed: dict[str, tuple[ObjectState, set[str]]] = {}
    for process in diagnosis.processes.values():
        for row in process.objects:
            if row.object_id.startswith(process.process_id):
                owned[row.object_id] = row
            else:
                borrowed.setdefault(row.object_id, (row, set()))[1].add(process.process_id)
    for object_id, row in owned.items():
        others = borrowed.pop(object_id, (row, set[str]()))[1]
        yield _located(diagnosis, row, others | set(row.borrower_ids))
    for row, others in borrowed.values():
        yield _located(diagnosis, replace(row, local_references=0), others)


def _located(diagnosis: Diagnosis, row: ObjectState, holders: set[str]) -> ObjectState:
    made_by = diagnosis.maker(row.object_id)
    return replace(
        row,
        owner_pid=diagnosis.pid(row.object_id[:PROCESS_DIGITS]),
        borrowers=sorted(pid for holder in holders if (pid := diagnosis.pid(holder)) is not None),
        borrower_ids=sorted(holders),
        made_by="" if made_by is None else made_by.name,
        node_id=row.object_id[:NODE_DIGITS],
    )


def workers(diagnosis: Diagnosis) -> Iterator[WorkerState]:
    """Yield all processes."""
    for worker in diagnosis.workers.values():
        report = diagnosis.processes.get(worker.worker_id)
        yield replace(
            worker,
            executing=[] if report is None else [item.name for item in report.executing],
            waits=[] if report is None else [diagnosis.judge_wait(wait).reason for wait in report.waits],
            answers=worker.worker_id not in diagnosis.silent,
        )


def placement_groups(diagnosis: Diagnosis) -> Iterator[PlacementGroupState]:
    """Yield all placement groups."""
    return (group for node in diagnosis.nodes for group in node.groups)


def waits(diagnosis: Diagnosis) -> list[WaitState]:
    """Return what threads wait for, the longest wait first."""
    rows = []
    for process in diagnosis.processes.values():
        for wait in process.waits:
            _, reason, waits_for = diagnosis.judge_wait(wait)
            seconds = max(0, diagnosis.now_ms - wait.since_ms) / 1000
            rows.append(replace(wait, seconds=seconds, reason=reason, waits_for=waits_for))
    return sorted(rows, key=lambda row: -row.seconds)
