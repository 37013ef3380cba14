"""This process and placement groups: making and awaiting them, and where its tasks and actors are to run."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...core.ids import node_of
from ...core.refs import ObjectRef
from ...core.resources.amounts import Demand, in_units, infeasible, missing
from ...core.scheduling import (
    PlacementGroup,
    PlacementGroupSchedulingStrategy,
    SchedulingStrategy,
    check_in_bundle,
    check_on_node,
)
from ...core.telling import tell
from ...exceptions import InfeasibleError, InputError, PlacementGroupRemovedError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.store import Store
from .failures import failure
from .links import Links
from .values import Values


class GroupCalls:
    """Placement groups as this process knows them.

    Attributes:
        assigned: for a worker: the resources that it was given for a lease, or for the actor that it is.
        captured: where the tasks that this process starts run if they don't say it themselves.
    """

    def __init__(self, links: Links, values: Values, store: Store) -> None:
        self._links, self._values, self._store = links, values, store
        self._watched: dict[m.GroupId, m.GroupState] = {}
        self._awaited: dict[m.GroupId, list[tuple[m.ObjectId, m.Value]]] = {}
        self._warned: set[str] = set()
        self.assigned: m.Assigned | None = None
        self.captured: PlacementGroupSchedulingStrategy | None = None

    # Making, removing, asking -----------------------------------------------------------------------------------

    def create(self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool) -> PlacementGroup:
        """Reserve bundles; returns at once.

        Raises:
            InfeasibleError: the nodes can never hold them.
            InputError: a group has that name.
        """
        group = PlacementGroup(os.urandom(8), [dict(bundle) for bundle in bundles], name)
        demands = [in_units(bundle) for bundle in bundles]
        refused = self._links.ask_node(m.CreateGroup(group.id, demands, strategy, name, detached))
        if refused is not None and refused.infeasible and self._links.welcome.infeasible == "wait":
            self._warn(refused.reason)
        elif refused is not None:
            raise (InfeasibleError if refused.infeasible else InputError)(refused.reason)
        return group

    def remove(self, group: PlacementGroup) -> None:
        """Give the bundles back, and end what runs in them."""
        with self._links.lock:
            self._links.check()
            self._links.node.send(m.RemoveGroup(group.id))
            known = self._watched.get(group.id)
            if known is not None and known.state == "CREATED":
                # The node says it with the reason; until then nothing is answered by what was known.
                self._watched[group.id] = m.GroupState(group.id, "PENDING")

    def ready(self, group: PlacementGroup) -> ObjectRef:
        """Return a reference to the handle that is ready once the bundles are reserved."""
        # Now and here: a large one needs memory, for which neither the thread that reads nor who has the lock may wait.
        handle, _ = self._store.pack(group, self._links.me)
        with self._links.lock:
            self._values.settle_drops()
            ref = self._values.new_ref(self._values.new_ids(1)[0])
            self._awaited.setdefault(group.id, []).append((ref.id, handle))
            self._watch(group.id)
            self._settle(group.id)
        return ref

    def current(self) -> PlacementGroup | None:
        """Return the group that this process was given a bundle of."""
        assigned = self.assigned
        if assigned is None or assigned.placement is None:
            return None
        return PlacementGroup(assigned.placement.group, list(assigned.bundles or ()), assigned.group_name)

    # What runs where --------------------------------------------------------------------------------------------

    def strategy_of(self, given: SchedulingStrategy | None) -> SchedulingStrategy | None:
        """Return the strategy of what this process starts: the one given, else that of a group that captures."""
        return self.captured if given is None else given

    def place(self, what: str, demand: Demand, strategy: SchedulingStrategy | None) -> m.Placement | None:
        """Return what tells the node where something is to run; call it under the lock.

        Raises:
            InfeasibleError: it can never run there.
        """
        if isinstance(strategy, PlacementGroupSchedulingStrategy):
            check_in_bundle(what, demand, strategy)
            self._watch(strategy.placement_group.id)
            return _placement(strategy)
        check_on_node(what, strategy, node_of(self._links.me).hex())
        wants = missing(demand, self._most_of(demand))
        if wants and self._links.welcome.infeasible == "raise":
            raise infeasible(what, wants)
        if wants:
            self._warn(f"{what} waits for a node that has what it asks for: {wants}")
        return None

    def _most_of(self, demand: Demand) -> Mapping[str, int]:
        """Return the resources of a node that can meet a demand; if there is none, of one that comes close."""

        def met(node: m.NodeInfo) -> tuple[int, int]:
            enough = sum(node.resources.get(name, 0) >= units for name, units in demand.items())
            return enough, node.resources.get("CPU", 0)

        return max(self._links.nodes.values(), key=met).resources

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            tell(f"shoal: {text}\n")

    def assignment(self, demand: Demand, gpus: list[str], strategy: SchedulingStrategy | None) -> m.Assigned:
        """Return what tells a worker what it was given."""
        if not isinstance(strategy, PlacementGroupSchedulingStrategy):
            return m.Assigned(demand, gpus)
        group = strategy.placement_group
        return m.Assigned(demand, gpus, _placement(strategy), [dict(spec) for spec in group.bundle_specs], group.name)

    def on_assigned(self, caller: Connection, message: m.Assigned) -> None:
        self.assigned = message
        if message.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(message.gpus)
        self.captured = None
        group = self.current()
        if group is not None and message.placement is not None and message.placement.captures:
            self.captured = PlacementGroupSchedulingStrategy(group, -1, placement_group_capture_child_tasks=True)

    # Events -----------------------------------------------------------------------------------------------------

    def _watch(self, group: m.GroupId) -> None:
        if group not in self._watched:
            self._watched[group] = m.GroupState(group, "PENDING")
            self._links.node.send(m.WatchGroup(group))

    def on_state(self, message: m.GroupState) -> None:
        """Event: a group has changed."""
        self._watched[message.group] = message
        self._settle(message.group)

    def _settle(self, group: m.GroupId) -> None:
        """Give the references that await a group their value, if its state is known."""
        if self._watched[group].state == "PENDING":
            return
        removal = self.removal_of(group)
        for object_id, handle in self._awaited.pop(group, ()):
            self._values.fulfil(object_id, removal or handle)
            if removal is not None:
                self._values.objects.discard(handle)

    def removal_of(self, group: m.GroupId) -> m.Value | None:
        """Return the failure of what was to run in a group that is removed; None if it isn't."""
        state = self._watched[group]
        if state.state != "REMOVED":
            return None
        return failure(PlacementGroupRemovedError(state.reason))


def _placement(strategy: PlacementGroupSchedulingStrategy) -> m.Placement:
    group, captures = strategy.placement_group, strategy.placement_group_capture_child_tasks
    return m.Placement(group.id, strategy.placement_group_bundle_index, captures)
