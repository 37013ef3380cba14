"""Who gets which resources of a node: a state machine without I/O, events in, grants out.

Requests wait in the order in which their askers came; a request that does not fit lets smaller ones of others pass
(a node must not idle), and askers take turns, so that nobody waits behind a long queue of somebody else.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, field

from .messages import ActorKey, ProcessId

Demand = dict[str, float]


@dataclass(frozen=True)
class GrantLease:
    """Give a worker to a process, for tasks of its kind `key`."""

    asker: ProcessId
    key: int
    demand: Demand


@dataclass(frozen=True)
class GrantActor:
    """Start an actor."""

    actor: ActorKey


@dataclass(frozen=True)
class Waiting:
    """A request that waits: of a process for `count` workers, or for the start of `actor`."""

    asker: ProcessId
    actor: ActorKey | None
    demand: Demand
    count: int


@dataclass
class _Request:
    asker: ProcessId
    key: int | ActorKey
    demand: Demand
    count: int


@dataclass
class Scheduler:
    """Resources of one node, what holds them, and who waits.

    Attributes:
        total: what the node has, by name.
        idle_slots: how many workers may be leased to tasks that ask for nothing, so that they can't fork without end.
    """

    total: Demand
    idle_slots: int
    _used: Demand = field(default_factory=dict)
    _waiting: deque[_Request] = field(default_factory=deque)
    _free_leases: int = 0

    def available(self) -> Demand:
        """Return what is free; never below zero, though a task that wakes up may overdraw."""
        return {name: max(0.0, amount - self._used.get(name, 0.0)) for name, amount in self.total.items()}

    def waiting(self) -> list[Waiting]:
        """Return the requests that cannot be granted now, in the order of the queue."""
        return [Waiting(r.asker, r.key if isinstance(r.key, bytes) else None, r.demand, r.count) for r in self._waiting]

    def want(self, asker: ProcessId, key: int, demand: Demand, count: int) -> None:
        """Event: a process could use `count` more workers for its kind `key`; replaces what it said before."""
        for request in self._waiting:
            if request.asker == asker and request.key == key:
                request.count = count
                break
        else:
            self._waiting.append(_Request(asker, key, demand, count))
        self._sweep()

    def want_again(self, asker: ProcessId, key: int, demand: Demand) -> None:
        """Event: a granted worker never came up; the wish for it stands."""
        count = next((r.count for r in self._waiting if r.asker == asker and r.key == key), 0)
        self.want(asker, key, demand, count + 1)

    def want_actor(self, asker: ProcessId, actor: ActorKey, demand: Demand) -> None:
        """Event: an actor is to be started."""
        self._waiting.append(_Request(asker, actor, demand, 1))

    def forget(self, asker: ProcessId) -> None:
        """Event: an asker has died."""
        self._waiting = deque(request for request in self._waiting if request.asker != asker)

    def forget_actor(self, actor: ActorKey) -> None:
        """Event: an actor is not to be started after all."""
        self._waiting = deque(request for request in self._waiting if request.key != actor)

    def grant(self, most: int = sys.maxsize) -> list[GrantLease | GrantActor]:
        """Return what can be granted now, at most so many; its resources count as used from here on."""
        grants: list[GrantLease | GrantActor] = []
        progress = True
        while progress:
            progress = False
            for request in list(self._waiting):
                if request.count > 0 and len(grants) < most and self._fits(request):
                    request.count -= 1
                    self.take(request.demand)
                    if isinstance(request.key, bytes):
                        grants.append(GrantActor(request.key))
                    else:
                        self._free_leases += not request.demand
                        grants.append(GrantLease(request.asker, request.key, request.demand))
                    progress = True
        self._sweep()
        return grants

    def _fits(self, request: _Request) -> bool:
        if not request.demand and isinstance(request.key, int):
            return self._free_leases < self.idle_slots
        return all(
            self._used.get(name, 0.0) + amount <= self.total.get(name, 0.0) + 1e-9
            for name, amount in request.demand.items()
        )

    def _sweep(self) -> None:
        if any(request.count <= 0 for request in self._waiting):
            self._waiting = deque(request for request in self._waiting if request.count > 0)

    def take(self, demand: Demand) -> None:
        """Event: something holds resources (again)."""
        for name, amount in demand.items():
            self._used[name] = self._used.get(name, 0.0) + amount

    def give_back(self, demand: Demand) -> None:
        """Event: something holds resources no more."""
        for name, amount in demand.items():
            self._used[name] = self._used.get(name, 0.0) - amount

    def end_lease(self, demand: Demand) -> None:
        """Event: a lease is over (its resources were given back)."""
        self._free_leases -= not demand
