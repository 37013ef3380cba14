"""Resources on the serial engine: whether a demand can be met, placement groups, and the GPUs of what runs."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from ..core.reports.rows import PlacementGroupState
from ..core.resources.amounts import Demand, check_feasible, in_amounts, in_units
from ..core.resources.capacity import Capacity
from ..core.resources.placement import never_reserved
from ..core.scheduling import (
    PlacementGroup,
    PlacementGroupSchedulingStrategy,
    SchedulingStrategy,
    check_in_bundle,
    check_on_node,
    group_name_taken,
)
from ..exceptions import DeadlockError, InfeasibleError, InputError, PlacementGroupRemovedError

NODE_ID = "serial"


# Of the whole process, so that a group that outlives its runtime is none of the next one.
_IDS = itertools.count(1)


@dataclass
class _Group:
    handle: PlacementGroup
    strategy: str
    bundles: dict[int, Demand]
    reserved: dict[int, Capacity] = field(default_factory=dict)
    removed: bool = False


@dataclass(frozen=True)
class Assigned:
    """What a task or actor was given: its resources, GPUs by id, and where it runs."""

    demand: Demand
    gpus: list[str]
    strategy: SchedulingStrategy | None


# Of each thread its own: several may run tasks at the same time.
_assigned: ContextVar[Assigned | None] = ContextVar("assigned", default=None)


class SerialResources:
    """All resources of the serial engine.

    Attributes:
        total: what `init` was given or found.
    """

    def __init__(self, total: Demand, gpus: list[str]) -> None:
        self.total = total
        self._gpus = gpus
        self._node = Capacity(total)
        self._groups: dict[bytes, _Group] = {}

    @property
    def assigned(self) -> Assigned | None:
        """What the task or actor that runs was given; None in the driver."""
        return _assigned.get()

    def available(self) -> dict[str, float]:
        """Return what no placement group has: nothing runs between two calls."""
        return in_amounts(self._node.free)

    def place(self, who: str, demand: Demand, given: SchedulingStrategy | None) -> SchedulingStrategy | None:
        """Return where something runs: as its own option says, else in the group of what runs, if that one captures.

        Raises:
            InfeasibleError: it can never run there.
        """
        strategy = given
        running = self.assigned.strategy if self.assigned is not None else None
        if (
            given is None
            and isinstance(running, PlacementGroupSchedulingStrategy)
            and running.placement_group_capture_child_tasks
        ):
            strategy = PlacementGroupSchedulingStrategy(running.placement_group, -1, True)
        if isinstance(strategy, PlacementGroupSchedulingStrategy):
            check_in_bundle(who, demand, strategy)
        else:
            check_on_node(who, strategy, NODE_ID)
            check_feasible(who, demand, self.total)
        return strategy

    def removal_of(self, strategy: SchedulingStrategy | None) -> PlacementGroupRemovedError | None:
        """Return the error of what is to run in a group that is removed."""
        if isinstance(strategy, PlacementGroupSchedulingStrategy):
            group = self._found(strategy.placement_group)
            if group.removed:
                return _removal(group.handle)
        return None

    @contextlib.contextmanager
    def entered(self, demand: Demand, strategy: SchedulingStrategy | None) -> Iterator[None]:
        """Run a task or a method with its resources: CUDA_VISIBLE_DEVICES says which GPUs it has."""
        assigned = Assigned(demand, self._choose_gpus(demand, strategy), strategy)
        outer, variable = _assigned.set(assigned), os.environ.get("CUDA_VISIBLE_DEVICES")
        if assigned.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(assigned.gpus)
        try:
            yield
        finally:
            if assigned.gpus:
                if variable is None:
                    del os.environ["CUDA_VISIBLE_DEVICES"]
                else:
                    os.environ["CUDA_VISIBLE_DEVICES"] = variable
            _assigned.reset(outer)

    def _choose_gpus(self, demand: Demand, strategy: SchedulingStrategy | None) -> list[str]:
        wanted = {"GPU": demand.get("GPU", 0)}
        if not wanted["GPU"]:
            return []
        places = [Capacity(self.total)]
        if isinstance(strategy, PlacementGroupSchedulingStrategy):
            reserved = self._groups[strategy.placement_group.id].reserved
            index = strategy.placement_group_bundle_index
            places = [bundle.copy() for i, bundle in reserved.items() if index in (-1, i)]
        shares = next((shares for place in places if (shares := place.take(wanted)) is not None), {})
        return [self._gpus[index] for index in shares]

    # Placement groups -------------------------------------------------------------------------------------------

    def create(self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool) -> PlacementGroup:
        """Reserve bundles at once, if no other group has what they need."""
        if name and any(group.handle.name == name and not group.removed for group in self._groups.values()):
            raise InputError(group_name_taken(name))
        handle = PlacementGroup(next(_IDS).to_bytes(8, "big"), [dict(bundle) for bundle in bundles], name)
        demands = [in_units(bundle) for bundle in bundles]
        never = never_reserved(handle, strategy, demands, self.total)
        if never:
            raise InfeasibleError(never)
        self._groups[handle.id] = _Group(handle, strategy, dict(enumerate(demands)))
        self._reserve()
        return handle

    def _found(self, handle: PlacementGroup) -> _Group:
        """Return a group; one of an earlier runtime has gone with that."""
        return self._groups.get(handle.id) or _Group(handle, "", {}, removed=True)

    def _reserve(self) -> None:
        for group in self._groups.values():
            if not group.reserved and not group.removed:
                taken = self._node.take_all(group.bundles)
                if taken is not None:
                    group.reserved = {i: Capacity(group.bundles[i], taken[i]) for i in sorted(taken)}

    def remove(self, handle: PlacementGroup) -> None:
        """Give a group's bundles back."""
        group = self._found(handle)
        if not group.removed:
            group.removed = True
            for bundle in group.reserved.values():
                self._node.put_back(bundle.free, bundle.gpus)
            group.reserved = {}
            self._reserve()

    def unready(self, handle: PlacementGroup) -> Exception | None:
        """Return why a group is not ready; None if it is."""
        group = self._found(handle)
        if group.removed:
            return _removal(handle)
        if group.reserved:
            return None
        return DeadlockError(
            f"{handle} waits for what other groups have, and nothing else runs on the serial engine meanwhile. "
            "Call remove_placement_group first, or use engine='native'"
        )

    def describe(self) -> list[PlacementGroupState]:
        """Return all groups."""
        return [
            PlacementGroupState(
                placement_group_id=group.handle.id.hex(),
                name=group.handle.name,
                strategy=group.strategy,
                state="REMOVED" if group.removed else "CREATED" if group.reserved else "PENDING",
                bundles=list(map(in_amounts, group.bundles.values())),
                node_ids=[NODE_ID] * len(group.reserved),
                reason=str(_removal(group.handle)) if group.removed else "",
            )
            for group in self._groups.values()
        ]

    def gpu_ids(self) -> list[str]:
        """Return the GPUs of what runs."""
        return [] if self.assigned is None else list(self.assigned.gpus)

    def current(self) -> PlacementGroup | None:
        """Return the group that what runs is in."""
        strategy = self.assigned.strategy if self.assigned is not None else None
        return strategy.placement_group if isinstance(strategy, PlacementGroupSchedulingStrategy) else None


def _removal(group: PlacementGroup) -> PlacementGroupRemovedError:
    return PlacementGroupRemovedError(f"{group} is gone: it was removed")
