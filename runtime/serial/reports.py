"""What the serial engine says of itself: one node and one process, both this one; nothing ever waits in it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence

from ..introspection.reports import (
    ActorReport,
    Event,
    ExecutingReport,
    MetricReport,
    NodeReport,
    ObjectReport,
    ProcessReport,
    WorkerReport,
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
    metrics: list[MetricReport],
) -> list[NodeReport]:
    """Return the report of the one node, in the form that all engines use; see `Engine.state`."""
    pid = os.getpid()
    objects = [_describe_object(key, value, key in lifetimes, sites.get(key, "")) for key, value in values.items()]
    process = ProcessReport(ME, pid, objects_total=len(objects), object_bytes=sum(row.size for row in objects))
    process.executing = [ExecutingReport(bytes([depth]), *what) for depth, what in enumerate(executing)]
    if "objects" in sections:
        process.objects = list(objects[:limit])
    if "events" in sections or "ended" in sections:
        process.events = list(events)
    process.metrics = metrics
    worker = WorkerReport(ME, pid, "driver", True, True, {}, cpu_seconds=time.process_time(), started=started)
    node = NodeReport(ME[:4], "serial", pid, socket.gethostname(), started, total, {})
    node.workers, node.actors, node.processes = [worker], list(map(_describe_actor, actors)), [process]
    return [node]


def _describe_object(object_id: bytes, value: Value, lifetime: bool, site: str) -> ObjectReport:
    where = "actor" if lifetime else "message" if value.failure is None else "failure"
    return ObjectReport(object_id, where, size_of(value), value.count, [], site)


def _describe_actor(actor: Actor) -> ActorReport:
    options, state = actor.options, "alive" if actor.death is None else "dead"
    return ActorReport(
        actor.info.id,
        actor.info.class_name,
        options.name or "",
        ME,
        state,
        ME,
        actor.restarts,
        options.max_restarts,
        in_amounts(options.demand),
        actor.death or "",
    )
