"""Who gets which resources of a node: a state machine without I/O, events in, grants out.

Requests wait in the order in which their askers came; a request that does not fit lets smaller ones of others pass
(a node must not idle), and askers take turns, so that nobody waits behind a long queue of somebody else.

So that nobody is passed for ever, requests **grow old**: each `pass_by` (the node calls it while somebody waits) adds
one to the age of those that have got nothing. An old request *holds*: nothing that it needs is given to those behind
it, and leases that stand in its way are called back from askers that have tasks enough to keep them for ever. It holds
only if the tasks that run can make room by ending: not for what actors and placement groups have, nor tasks that wait
for others, which may be the ones held up. And only for a while, then it lets others pass for twice as long, then holds
for twice as long again: whatever it is that does not end, the others get half of the time at least.

A placement group takes its bundles out of the node's resources all at once; who runs in the group draws from a bundle.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from ...core.ids import ActorKey, GroupId, ProcessId
from ...core.reports.rows import RequestState
from ...core.resources.amounts import Demand, as_text, in_amounts
from ...core.resources.capacity import Capacity, Shares
from ..protocol.wire import Placement

#: From this age on a request holds, at first for as many passes.
PATIENCE = 10


@dataclass(eq=False)
class Lease:
    """Resources lent: to a process for tasks of its kind `key`, or to the actor `key`.

    Attributes:
        group, bundle: the placement group's bundle that they come from, if any.
        gpus: the GPUs among them.
        blocked: its task waits for others, so its CPUs are free meanwhile.
        recalled: its asker was asked to give it back.
        since, retriable: for the node: when it began (monotonic seconds), and whether what runs in it is begun again by
            itself if its process dies.
    """

    asker: ProcessId
    key: int | ActorKey
    demand: Demand
    group: GroupId | None = None
    bundle: int = -1
    gpus: Shares = field(default_factory=dict)
    blocked: bool = False
    recalled: bool = False
    since: float = 0.0
    retriable: bool = False

    def held(self) -> Demand:
        """Return what it takes at the moment."""
        if not self.blocked:
            return self.demand
        return {name: units for name, units in self.demand.items() if name != "CPU"}


class GrantGroup(msgspec.Struct, frozen=True):
    """All bundles of a placement group are reserved."""

    group: GroupId


@dataclass(eq=False)
class _Request:
    """Somebody waits for resources: so many leases, or (`bundles`) a placement group for its reservation."""

    asker: ProcessId
    key: int | ActorKey
    demand: Demand
    count: int
    placement: Placement | None = None
    bundles: dict[int, Demand] | None = None
    spread: bool = False  # the head is to say where
    settled: bool = False  # … and has said that it is here
    age: int = 0

    @property
    def scope(self) -> GroupId | None:
        """The placement group whose reservation it draws from; None: the node."""
        return None if self.placement is None else self.placement.group

    def total_demand(self) -> Demand:
        """Return what it needs, for a group that of all bundles together."""
        total = Counter(self.demand)
        for bundle in (self.bundles or {}).values():
            total.update(bundle)
        return dict(total)

    def holds(self) -> bool:
        """Return whether it is old enough to hold; it does in every second one of ever longer stretches."""
        return (self.age // PATIENCE).bit_length() % 2 == 1


@dataclass
class Scheduler:
    """Resources of one node, what holds them, and the requests that wait.

    Attributes:
        leaves_work: what asks for nothing is to run on another node, since this one has no CPU.
        leaves_spreading: the head says where what is to be spread runs, since there are several nodes.
        total: what the node has, in units.
        idle_slots: how many workers may be leased to tasks that ask for nothing, so that they can't fork without end.
    """

    total: Demand
    idle_slots: int
    leaves_work: bool = False
    leaves_spreading: bool = False
    _waiting: deque[_Request] = field(default_factory=deque)
    _leases: dict[Lease, None] = field(default_factory=dict)
    _groups: dict[GroupId, dict[int, Capacity]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._node = Capacity(self.total)

    def available(self) -> Demand:
        """Return what is free; never below zero, though a task that wakes up may overdraw."""
        return {name: max(0, units) for name, units in self._node.free.items()}

    @property
    def waits(self) -> bool:
        """Whether a request waits."""
        return bool(self._waiting)

    # Requests ---------------------------------------------------------------------------------------------------

    def want(  # noqa: PLR0917  # what a request consists of
        self,
        asker: ProcessId,
        key: int,
        demand: Demand,
        count: int,
        placement: Placement | None = None,
        spread: bool = False,
    ) -> None:
        """Event: a process could use `count` more workers for its kind `key`; replaces what it said before."""
        request = self._find(asker, key, spread)
        if request is not None:
            request.count = count
        else:
            self._waiting.append(_Request(asker, key, demand, count, placement, spread=spread))
        self._sweep()

    def _find(
        self, asker: ProcessId, key: int | ActorKey, spread: bool = False, settled: bool = False
    ) -> _Request | None:
        wanted = (asker, key, spread, settled)
        return next((r for r in self._waiting if (r.asker, r.key, r.spread, r.settled) == wanted), None)

    def want_again(self, lease: Lease) -> None:
        """Event: the worker for a lease never came up; the wish for it stands."""
        assert isinstance(lease.key, int)
        placement = None if lease.group is None else Placement(lease.group, lease.bundle)
        self.want_more(lease.asker, lease.key, lease.demand, placement)

    def want_more(  # what a request consists of
        self,
        asker: ProcessId,
        key: int,
        demand: Demand,
        placement: Placement | None = None,
        settled: bool = False,
    ) -> None:
        """Event: a process could use one worker more than it has said; `settled`: on this node and on no other."""
        known = self._find(asker, key, settled=settled)
        if known is not None:
            known.count += 1
        else:
            self._waiting.append(_Request(asker, key, demand, 1, placement, settled=settled))

    def wishes(self) -> list[tuple[ProcessId, int | ActorKey, int, bool]]:
        """Return asker, key, count and whether it is to be spread, of what waits and might run elsewhere."""
        return [(r.asker, r.key, r.count, r.spread) for r in self._waiting if r.bundles is None and not r.settled]

    def want_actor(self, asker: ProcessId, actor: ActorKey, demand: Demand, placement: Placement | None = None) -> None:
        """Event: an actor is to be started."""
        self._waiting.append(_Request(asker, actor, demand, 1, placement))

    def want_group(self, group: GroupId, bundles: dict[int, Demand]) -> None:
        """Event: a placement group is to have these bundles, by index, reserved here."""
        self._waiting.append(_Request(b"", group, {}, 1, bundles=bundles))

    def withdraw(self, asker: ProcessId, key: int | ActorKey, spread: bool = False) -> bool:
        """Event: another node takes over one of what was asked for here. False if that does not wait any more."""
        request = self._find(asker, key, spread)
        if request is not None:
            request.count -= 1
            self._sweep()
        return request is not None

    def forget(self, asker: ProcessId) -> None:
        """Event: an asker has died."""
        self._waiting = deque(request for request in self._waiting if request.asker != asker)

    def forget_actor(self, actor: ActorKey) -> None:
        """Event: an actor is not to be started after all."""
        self._waiting = deque(request for request in self._waiting if request.key != actor)

    def drop_group(self, group: GroupId) -> list[Lease]:
        """Event: a placement group is removed. What is free of it goes back to the node, the rest as its leases end.

        Returns:
            the leases in it, which are to be ended.
        """
        self._waiting = deque(r for r in self._waiting if group not in (r.scope, r.key))
        for bundle in self._groups.pop(group, {}).values():
            self._node.put_back(bundle.free, bundle.gpus)
        leases = [lease for lease in self._leases if lease.group == group]
        for lease in leases:
            lease.group, lease.bundle = None, -1
        return leases

    def _sweep(self) -> None:
        if any(request.count <= 0 for request in self._waiting):
            self._waiting = deque(request for request in self._waiting if request.count > 0)

    # Grants -----------------------------------------------------------------------------------------------------

    def grant(self, most: int = sys.maxsize) -> list[Lease | GrantGroup]:
        """Return what can be granted now, at most so many; its resources count as used from here on."""
        grants: list[Lease | GrantGroup] = []
        progress = True
        while progress:
            progress = False
            held: set[tuple[GroupId | None, str]] = set()
            for request in list(self._waiting):
                if request.count <= 0 or len(grants) >= most:
                    continue
                if held and any((request.scope, name) in held for name in request.total_demand()):
                    continue
                granted = self._take(request)
                if granted is not None:
                    request.count -= 1
                    request.age = 0
                    grants.append(granted)
                    progress = True
                elif request.holds() and self._could_fit(request) is not None:
                    held |= {(request.scope, name) for name in request.total_demand()}
        self._sweep()
        return grants

    def _take(self, request: _Request) -> Lease | GrantGroup | None:
        if request.bundles is not None:
            assert isinstance(request.key, bytes)
            taken = self._node.take_all(request.bundles)
            if taken is None:
                return None
            self._groups[request.key] = {i: Capacity(request.bundles[i], taken[i]) for i in sorted(taken)}
            return GrantGroup(request.key)
        leaves = not request.demand and self.leaves_work and request.placement is None
        if leaves or (request.spread and self.leaves_spreading):
            return None
        if not request.demand and isinstance(request.key, int) and self._free_leases() >= self.idle_slots:
            return None
        for index, capacity in self._sources(request):
            shares = capacity.take(request.demand)
            if shares is not None:
                lease = Lease(request.asker, request.key, request.demand, request.scope, index, shares)
                self._leases[lease] = None
                return lease
        return None

    def _free_leases(self) -> int:
        return sum(not lease.demand and isinstance(lease.key, int) for lease in self._leases)

    def _sources(self, request: _Request) -> Iterator[tuple[int, Capacity]]:
        """Where a request may take its resources from: the node, or bundles of its group by index."""
        if request.placement is None:
            yield -1, self._node
            return
        for index, capacity in self._groups.get(request.placement.group, {}).items():
            if request.placement.bundle in (-1, index):
                yield index, capacity

    def _source(self, lease: Lease) -> Capacity:
        return self._node if lease.group is None else self._groups[lease.group][lease.bundle]

    # Growing old ------------------------------------------------------------------------------------------------

    def pass_by(self) -> list[Lease]:
        """Event: a moment has passed in which a request waited.

        Returns:
            leases that their askers are to give back as soon as what they run has ended.
        """
        served = Counter((lease.asker, lease.key) for lease in self._leases)
        recalled: list[Lease] = []
        for request in self._waiting:
            if not served[request.asker, request.key]:
                request.age += 1
                if request.holds():
                    # From those first that have most.
                    leases = sorted(self._leases, key=lambda lease: -served[lease.asker, lease.key])
                    recalled += self._could_fit(request, leases) or ()
        for lease in recalled:
            lease.recalled = True
        return recalled

    def _could_fit(self, request: _Request, leases: Iterable[Lease] | None = None) -> list[Lease] | None:
        """Return which leases would have to end for a request to fit, without those called back; None if none would do.

        Only leases of tasks that do not wait for others count, those called back first.
        """
        if request.bundles is None and not request.demand:
            return None
        places = [None] if request.bundles is not None else list(self._sources(request))
        for place in places:
            capacity = (self._node if place is None else place[1]).copy()
            index = -1 if place is None else place[0]
            candidates = [
                lease
                for lease in (self._leases if leases is None else leases)
                if isinstance(lease.key, int)
                and not lease.blocked
                and (lease.group, lease.bundle) == (request.scope, index)
            ]
            needed: list[Lease] = []
            for lease in [None, *sorted(candidates, key=lambda lease: not lease.recalled)]:
                if lease is not None:
                    capacity.put_back(lease.demand, lease.gpus)
                    needed += [] if lease.recalled else [lease]
                if _fits(capacity.copy(), request):
                    return needed
        return None

    # Leases -----------------------------------------------------------------------------------------------------

    def release(self, lease: Lease) -> None:
        """Event: a lease is over."""
        del self._leases[lease]
        self._source(lease).put_back(lease.held(), lease.gpus)

    def set_blocked(self, lease: Lease, blocked: bool) -> None:
        """Event: its task waits for others, or goes on: that doesn't wait for CPUs, and may overdraw them."""
        if lease.blocked != blocked:
            lease.blocked = blocked
            units = lease.demand.get("CPU", 0)
            if units:
                self._source(lease).put_back({"CPU": units if blocked else -units}, {})

    # Explaining -------------------------------------------------------------------------------------------------

    def waiting(self) -> list[RequestState]:
        """Return the requests that cannot be granted now, in the order of the queue, with the reason of each."""
        return [
            RequestState(
                required_resources=in_amounts(request.total_demand()),
                count=request.count,
                actor_id=request.key.hex() if isinstance(request.key, bytes) and request.bundles is None else None,
                placement_group_id=None if request.scope is None else request.scope.hex(),
                note=f"{self._lacks(request)}; number {place} of {len(self._waiting)} in the queue",
            )
            for place, request in enumerate(self._waiting, 1)
        ]

    def _lacks(self, request: _Request) -> str:
        if request.spread and self.leaves_spreading:
            return "no node has room for it"
        if request.scope is not None and request.scope not in self._groups:
            return "its placement group has not been reserved yet"
        demand = request.total_demand()
        if not demand:
            return f"{self._free_leases()} of at most {self.idle_slots} workers run tasks that ask for nothing"
        sources = [self._node] if request.bundles is not None else [capacity for _, capacity in self._sources(request)]
        parts = []
        for name in sorted(demand):
            free = max(capacity.free.get(name, 0) for capacity in sources)
            total = max(capacity.total.get(name, 0) for capacity in sources)
            if demand[name] > free:
                parts.append(f"{name} {as_text(demand[name])} wanted, {as_text(max(0, free))} of {as_text(total)} free")
        if not parts:
            return "its turn has not come, or its share of a GPU is free on no single one"
        tasks = sum(isinstance(lease.key, int) and lease.group == request.scope for lease in self._leases)
        actors = sum(isinstance(lease.key, bytes) and lease.group == request.scope for lease in self._leases)
        return f"{', '.join(parts)}; held by {tasks} workers for tasks and {actors} actors"


def _fits(capacity: Capacity, request: _Request) -> bool:
    if request.bundles is not None:
        return capacity.take_all(request.bundles) is not None
    return capacity.take(request.demand) is not None
