"""What the serial engine says of itself: one node and one process, both this one; nothing ever waits in it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence

from ..introspection.events import Event
from ..introspection.reports import NodeReport, ProcessReport
from ..introspection.rows import (
    NODE_DIGITS,
    ActorState,
    ExecutionState,
    MetricState,
    NodeState,
    ObjectState,
    WorkerState,
    unix_ms,
)
from ..resources import in_amounts
from .records import Actor, Value, size_of

#: The only process of the serial engine; its objects' ids begin with the same bytes.
ME = bytes(8)


def report_serial(
    sections: Sequence[str],
    limit: int,
    *,
    started: float,
    total: dict[str, float],
    executing: Iterable[tuple[str, float]],
    values: Mapping[bytes, Value],
    lifetimes: Mapping[bytes, bytes],
    sites: Mapping[bytes, str],
    actors: Iterable[Actor],
    events: Sequence[Event],
    metrics: list[MetricState],
) -> list[NodeReport]:
    """Return the report of the one node, in the form that all engines use; see `Engine.state`."""
    pid, me = os.getpid(), ME.hex()
    objects = [_describe_object(key, value, key in lifetimes, sites.get(key, "")) for key, value in values.items()]
    process = ProcessReport(
        process_id=me, pid=pid, objects_total=len(objects), object_bytes=sum(row.object_size for row in objects)
    )
    process.executing = [
        ExecutionState(task_id=f"{depth:02x}", name=name, start_time_ms=unix_ms(began) or 0)
        for depth, (name, began) in enumerate(executing)
    ]
    if "objects" in sections:
        process.objects = objects[:limit]
    if "events" in sections or "ended" in sections:
        process.events = list(events)
    process.metrics = metrics
    node = NodeState(
        node_id=me[:NODE_DIGITS],
        node_name=socket.gethostname(),
        state="ALIVE",
        pid=pid,
        session="serial",
        is_head_node=True,
        resources_total=total,
        start_time_ms=unix_ms(started),
    )
    worker = WorkerState(
        worker_id=me,
        pid=pid,
        worker_type="DRIVER",
        title="driver",
        is_alive=True,
        node_id=node.node_id,
        cpu_seconds=time.process_time(),
        start_time_ms=node.start_time_ms,
    )
    return [NodeReport(node=node, workers=[worker], actors=list(map(_describe_actor, actors)), processes=[process])]


def _describe_object(object_id: bytes, value: Value, lifetime: bool, site: str) -> ObjectState:
    return ObjectState(
        object_id=object_id.hex(),
        where="actor" if lifetime else "message" if value.failure is None else "failure",
        object_size=size_of(value),
        local_references=value.count,
        call_site=site,
    )


def _describe_actor(actor: Actor) -> ActorState:
    options, me = actor.options, ME.hex()
    return ActorState(
        actor_id=actor.info.id.hex(),
        class_name=actor.info.class_name,
        state="ALIVE" if actor.death is None else "DEAD",
        name=options.name or "",
        reason=actor.death or "",
        node_id=me[:NODE_DIGITS],
        worker_id=me,
        owner_id=me,
        num_restarts=actor.restarts,
        max_restarts=options.max_restarts,
        required_resources=in_amounts(options.demand),
    )
