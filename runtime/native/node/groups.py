"""The table of placement groups: their creators, states and watchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ...core.reports.rows import PlacementGroupState
from ...core.resources.amounts import in_amounts
from ...core.resources.placement import never_reserved
from ...core.scheduling import group_name_taken
from ..protocol import messages as m
from .cluster import Cluster
from .leasing import Leasing

# So many removed groups are remembered, for the table.
_MOST_REMOVED = 100


@dataclass
class Group:
    """A placement group: how it is (`row`), and who hears of it; `creator`: None if it outlives that."""

    id: m.GroupId
    row: PlacementGroupState
    creator: m.ProcessId | None
    watchers: set[m.ProcessId] = field(default_factory=set)

    def __str__(self) -> str:
        """Return how messages name it."""
        return f"placement group {self.row.name or self.id.hex()[-10:]}"

    def told(self) -> m.GroupState:
        """Return what its watchers are told."""
        return m.GroupState(self.id, self.row.state, self.row.reason)


class Groups:
    """All placement groups of the cluster; their bundles are reserved on its first node, this one.

    Args:
        lasts: whether what a process creates lasts no longer than that process: a driver, or an actor's. The groups of
            tasks stay, as the worker that happens to run a task is nobody in particular.
        end_actors: ends the actors in a group, for that reason.
        keeps_infeasible: whether groups that can never be reserved wait, for a cluster that grows.
    """

    def __init__(
        self,
        leasing: Leasing,
        cluster: Cluster,
        lasts: Callable[[m.ProcessId], bool],
        end_actors: Callable[[m.GroupId, str], None],
        keeps_infeasible: bool,
    ) -> None:
        self._leasing, self._tell, self._lasts, self._end_actors = leasing, cluster.tell, lasts, end_actors
        self._node = cluster.nodes[cluster.me]
        self._keeps_infeasible = keeps_infeasible
        self._groups: dict[m.GroupId, Group] = {}
        self.handlers: dict[type, Callable[..., None]] = {
            m.CreateGroup: self._on_create,
            m.WatchGroup: self._on_watch,
            m.GroupReserved: self._on_reserved,
            m.RemoveGroup: lambda process, message: self._remove(message.group, "it was removed"),
            m.AskGroups: lambda process, message: self._tell(process, m.Answer.to(message, self.describe())),
        }

    def _on_create(self, process: m.ProcessId, message: m.CreateGroup) -> None:
        if message.name and any(row.name == message.name and row.state != "REMOVED" for row in self.describe()):
            self._tell(process, m.Answer.to(message, m.GroupRefused(group_name_taken(message.name))))
            return
        creator = process if not message.detached and self._lasts(process) else None
        row = PlacementGroupState(
            placement_group_id=message.group.hex(),
            name=message.name,
            strategy=message.strategy,
            state="PENDING",
            bundles=list(map(in_amounts, message.bundles)),
            creator_id=(creator or b"").hex(),
        )
        group = Group(message.group, row, creator)
        row.reason = never_reserved(group, message.strategy, message.bundles, self._node.resources)
        if not row.reason:
            self._leasing.want_group(group.id, dict(enumerate(message.bundles)))
        if not row.reason or self._keeps_infeasible:
            self._groups[group.id] = group
        refused = m.GroupRefused(row.reason, infeasible=True) if row.reason else None
        self._tell(process, m.Answer.to(message, refused))
        self._leasing.grant()

    def _on_reserved(self, process: m.ProcessId, message: m.GroupReserved) -> None:
        group = self._groups[message.group]
        group.row.state, group.row.node_ids = "CREATED", [self._node.id.hex()] * len(group.row.bundles)
        self._show(group)

    def _on_watch(self, process: m.ProcessId, message: m.WatchGroup) -> None:
        group = self._groups.get(message.group)
        if group is None:
            self._tell(process, m.GroupState(message.group, "REMOVED", "the placement group is gone"))
            return
        group.watchers.add(process)
        if group.row.state != "PENDING":
            self._tell(process, group.told())

    def _show(self, group: Group) -> None:
        for watcher in group.watchers:
            self._tell(watcher, group.told())

    def _remove(self, group_id: m.GroupId, why: str) -> None:
        group = self._groups.get(group_id)
        if group is None or group.row.state == "REMOVED":
            return
        row = group.row
        row.state, row.node_ids, row.reason = "REMOVED", [], f"{group} is gone: {why}"
        removed = [other.id for other in self._groups.values() if other.row.state == "REMOVED"]
        for other in removed[:-_MOST_REMOVED]:
            del self._groups[other]
        self._show(group)  # first: whoever has tasks there is to know why their workers die
        self._end_actors(group.id, row.reason)
        self._leasing.drop_group(group.id)
        self._leasing.grant()

    def process_died(self, process: m.ProcessId, reason: str) -> None:
        """A process is gone, and with it the groups that it made for itself."""
        for group in list(self._groups.values()):
            group.watchers.discard(process)
            if group.creator == process:
                self._remove(group.id, f"the process that created it is gone: {reason}")

    def describe(self) -> list[PlacementGroupState]:
        """Return all groups."""
        return [group.row for group in self._groups.values()]
