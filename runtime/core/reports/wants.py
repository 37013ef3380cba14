"""Who wants which resources, what is free, and who holds the rest; as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .rows import NodeReport, PlacementGroupState, WorkerState, short_id

_MOST_HOLDERS = 3
_MOST_PIDS = 4


@dataclass(frozen=True)
class Shortage:
    """What is missing: in full, with its holders, and in brief."""

    full: str
    brief: str


def describe_demand(demand: Mapping[str, float]) -> str:
    """Return the text for resources: ``CPU 1 and license 2``."""
    return " and ".join(f"{name} {amount:g}" for name, amount in demand.items()) or "no resources"


def describe_shortage(
    demand: Mapping[str, float], nodes: list[NodeReport], label: Callable[[WorkerState], str]
) -> Shortage:
    """Return what keeps a request from being granted.

    Args:
        demand: what it asks for.
        nodes: all nodes.
        label: returns what a process is busy with.
    """
    if not demand:
        return Shortage("a worker process", "a worker process")
    if any(_fits(demand, node) for node in nodes):
        # It may be a worker that still starts; the scheduler knows if it is something else.
        return Shortage(_note(demand, None, nodes) or "a worker process that starts", "a worker process")
    short = [name for name in demand if all(node.node.free(name) < demand[name] - 1e-9 for node in nodes)]
    if not short:
        what = f"{describe_demand(demand)} on one node; each is free somewhere, but not together"
        return Shortage(what, what)
    brief = " and ".join(_amounts(name, demand[name], nodes) for name in short)
    holders = _holders(short, nodes, label)
    return Shortage(brief + (f"; held by {holders}" if holders else ""), brief)


def describe_shortage_in_group(
    demand: Mapping[str, float], group: PlacementGroupState, home: NodeReport, label: Callable[[WorkerState], str]
) -> Shortage:
    """Return what keeps a request from being granted that is to run in a placement group.

    Args:
        demand: what it asks for.
        group: the group.
        home: the node that reserves the group.
        label: returns what a process is busy with.
    """
    name = f"placement group {group.name or short_id(group.placement_group_id)}"
    if group.state == "CREATED":
        note = _note(demand, group.placement_group_id, [home])
        if not note:
            return Shortage("a worker process that starts", "a worker process")
        brief = f"{describe_demand(demand)} in {name}"
        return Shortage(f"{brief}: {note}", brief)
    wanted: Counter[str] = Counter()
    for bundle in group.bundles:
        wanted.update(bundle)
    amounts = " and ".join(_amounts(resource, amount, [home]) for resource, amount in wanted.items())
    bundles = f" in {len(group.bundles)} bundles" * (len(group.bundles) > 1)
    brief = f"{name}, which has not been reserved yet: it wants {amounts}{bundles}"
    holders = _holders([resource for resource in wanted if home.node.free(resource) < wanted[resource]], [home], label)
    parts = [brief, f"held by {holders}" * bool(holders), group.reason]
    return Shortage("; ".join(filter(None, parts)), brief)


def _note(demand: Mapping[str, float], group: str | None, nodes: list[NodeReport]) -> str:
    """Return what the scheduler says of a request that is in its queue."""
    rows = (row for node in nodes for row in node.requests)
    found = (row.note for row in rows if (row.required_resources, row.placement_group_id) == (demand, group))
    return next(filter(None, found), "")


def _fits(demand: Mapping[str, float], node: NodeReport) -> bool:
    return all(node.node.free(name) >= amount - 1e-9 for name, amount in demand.items())


def _amounts(name: str, wanted: float, nodes: list[NodeReport]) -> str:
    free = sum(node.node.free(name) for node in nodes)
    total = sum(node.node.resources_total.get(name, 0.0) for node in nodes)
    return f"{name} {wanted:g} ({free:g} of {total:g} free)"


def _holders(names: list[str], nodes: list[NodeReport], label: Callable[[WorkerState], str]) -> str:
    found: dict[str, list[int]] = {}
    for node in nodes:
        for worker in node.workers:
            if any(worker.required_resources.get(name) for name in names):
                pids = found.setdefault(label(worker), [])
                pids += [] if worker.pid is None else [worker.pid]
    texts = []
    for what, pids in list(found.items())[:_MOST_HOLDERS]:
        more = f" and {len(pids) - _MOST_PIDS} more" if len(pids) > _MOST_PIDS else ""
        where = f" in pid {', '.join(map(str, pids[:_MOST_PIDS]))}{more}" if pids else ", which is being made"
        texts.append(f"{what}{where}")
    if len(found) > _MOST_HOLDERS:
        texts.append(f"{len(found) - _MOST_HOLDERS} others")
    return "; ".join(texts)
