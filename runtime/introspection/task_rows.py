"""Public rows for tasks, actors, processes, nodes and waits, out of a diagnosis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .diagnosis import Diagnosis
from .reports import NodeReport, TaskReport
from .state_rows import ActorState, NodeState, PlacementGroupState, TaskState, WaitState, WorkerState
from .story_events import ended_tasks

_ORDER = ("RUNNING", "SUBMITTED_TO_WORKER", "PENDING_NODE_ASSIGNMENT", "PENDING_ARGS_AVAIL")


def _ms(node: NodeReport, monotonic: float) -> int | None:
    return int(node.wall_time(monotonic) * 1000) if monotonic else None


def task_rows(diagnosis: Diagnosis) -> list[TaskState]:
    """Return tasks that have not ended, running ones first, then those that have, the latest first."""
    living = [task_row(diagnosis, row, owner) for row, owner in diagnosis.tasks.values()]
    living.sort(key=lambda row: _ORDER.index(row.state) if row.state in _ORDER else len(_ORDER))
    ended = [
        task_row(diagnosis, row, process.process)
        for process in diagnosis.processes.values()
        for row in ended_tasks(process.events)
    ]
    return living + sorted(ended, key=lambda row: -(row.end_time_ms or 0))


def task_row(diagnosis: Diagnosis, row: TaskReport, owner: bytes) -> TaskState:
    """Return the public row for one task."""
    verdict = diagnosis.judge(row, owner)
    node = diagnosis.node_of(owner)
    running = diagnosis.executing.get(row.task)
    worker = running[0] if running is not None else row.worker
    started = running[1].started if running is not None else row.started
    return TaskState(
        row.task.hex(),
        row.name,
        row.type,
        verdict.state,
        verdict.reason,
        verdict.waits_for,
        actor_id=row.actor.hex() or None,
        owner_pid=diagnosis.pid(owner),
        node_id=worker[:4].hex() or None,
        worker_id=worker.hex() or None,
        worker_pid=diagnosis.pid(worker) if worker else None,
        required_resources=dict(row.demand),
        retries_left=row.retries,
        creation_time_ms=_ms(node, row.submitted),
        start_time_ms=_ms(node, started),
        end_time_ms=_ms(node, row.ended),
        error_type=row.error or None,
    )


def actor_rows(diagnosis: Diagnosis) -> Iterator[ActorState]:
    """Yield all actors."""
    calls: Counter[bytes] = Counter()
    for process in diagnosis.processes.values():
        for group in process.groups:
            if group.type == "ACTOR_TASK":
                calls[group.actor] += group.count
    for node, actor in diagnosis.actors.values():
        verdict = diagnosis.judge_actor(actor)
        yield ActorState(
            actor.actor.hex(),
            actor.class_name,
            verdict.state,
            actor.name,
            verdict.reason,
            verdict.waits_for,
            node_id=actor.process[:4].hex() or node.node.hex(),
            pid=diagnosis.pid(actor.process),
            owner_pid=diagnosis.pid(actor.owner),
            num_restarts=actor.restarts,
            max_restarts=actor.max_restarts,
            required_resources=dict(actor.demand),
            pending_calls=calls[actor.actor],
        )


def worker_rows(diagnosis: Diagnosis) -> Iterator[WorkerState]:
    """Yield all processes."""
    for node, worker in diagnosis.workers.values():
        report = diagnosis.processes.get(worker.process)
        yield WorkerState(
            worker.process.hex(),
            worker.pid,
            "DRIVER" if worker.driver else "ACTOR" if worker.actor else "WORKER",
            worker.title,
            worker.registered and not worker.ended,
            node.node.hex(),
            executing=[] if report is None else [item.name for item in report.executing],
            waits=[] if report is None else [diagnosis.judge_wait(wait).reason for wait in report.waits],
            answers=worker.process not in diagnosis.silent,
            blocked=worker.blocked,
            required_resources=dict(worker.demand),
            cpu_seconds=worker.cpu_seconds,
            memory=worker.memory,
            shared_memory=worker.shared_memory,
            viewed_memory=worker.viewed,
            start_time_ms=_ms(node, worker.started),
        )


def node_rows(diagnosis: Diagnosis) -> Iterator[NodeState]:
    """Yield all nodes, those that are gone last."""
    for number, node in enumerate(diagnosis.nodes):
        yield NodeState(
            node.node.hex(),
            node.host,
            "ALIVE",
            node.pid,
            node.session,
            number == 0,
            dict(node.total),
            dict(node.used),
            node.metrics_address,
            _ms(node, node.started),
        )
    for head in diagnosis.nodes[:1]:
        for gone in head.dead:
            yield NodeState(gone.node.hex(), gone.host, "DEAD", gone.pid, head.session, False, dict(gone.total), {})


def group_rows(diagnosis: Diagnosis) -> Iterator[PlacementGroupState]:
    """Yield all placement groups."""
    for node in diagnosis.nodes:
        for row in node.groups:
            yield PlacementGroupState(row.group.hex(), row.name, row.strategy, row.state, row.bundles, row.reason)


def wait_rows(diagnosis: Diagnosis) -> list[WaitState]:
    """Return what threads wait for, the longest wait first."""
    rows = []
    for process in diagnosis.processes.values():
        node = diagnosis.node_of(process.process)
        for wait in process.waits:
            verdict = diagnosis.judge_wait(wait)
            seconds = max(0.0, node.now - wait.since)
            since = _ms(node, wait.since) or 0
            rows.append(WaitState(process.pid, wait.thread, since, seconds, verdict.reason, verdict.waits_for))
    return sorted(rows, key=lambda row: -row.seconds)
