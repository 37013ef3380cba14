"""Where tasks and actors run: placement groups and the strategies of the option `scheduling_strategy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..exceptions import InfeasibleError, InputError, InputTypeError, nearest
from .arguments import as_int, as_timeout, check_text
from .current import current_engine
from .resources.amounts import check_amount, check_gpus, in_units, infeasible, missing

if TYPE_CHECKING:
    from .refs import ObjectRef

#: How the bundles of a group are spread over the nodes.
GROUP_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
_NAMED_STRATEGIES = ("DEFAULT", "SPREAD")


@dataclass(frozen=True)
class PlacementGroup:
    """Handle of a placement group, made by `placement_group`: resources reserved together, in bundles.

    Attributes:
        id: its id.
        bundle_specs: the resources of each bundle.
        name: the name that `get_placement_group` finds it by, or "".
    """

    id: bytes
    bundle_specs: list[Mapping[str, float]] = field(compare=False)
    name: str = field(default="", compare=False)

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self.bundle_specs)

    def ready(self) -> ObjectRef:
        """Return a reference to this handle that is ready once all bundles are reserved.

        `get` of it raises PlacementGroupRemovedError if the group has been removed.
        """
        return current_engine().group_ready(self)

    def wait(self, timeout_seconds: float | None = 30) -> bool:
        """Return whether all bundles are reserved, within so many seconds; None waits without limit."""
        timeout = as_timeout(f"{self}.wait", timeout_seconds)
        ready, _ = current_engine().waits.wait([self.ready()], 1, timeout)
        return bool(ready)

    def __str__(self) -> str:
        """Return how messages name it."""
        return f"placement group {self.name or self.id.hex()[-10:]}"


@dataclass(frozen=True)
class PlacementGroupSchedulingStrategy:
    """Run in a bundle of a placement group, and take resources from its reservation only.

    Attributes:
        placement_group: the group.
        placement_group_bundle_index: which bundle; -1: any that has room.
        placement_group_capture_child_tasks: whether the tasks and actors that it starts run in the group, too.
    """

    placement_group: PlacementGroup
    placement_group_bundle_index: int = -1
    placement_group_capture_child_tasks: bool = False

    def __post_init__(self) -> None:
        group, index = self.placement_group, as_int(self.placement_group_bundle_index)
        if not isinstance(group, PlacementGroup):
            raise InputTypeError(f"placement_group={group!r:.80}: want what placement_group(…) returned")
        if index is None or not -1 <= index < group.bundle_count:
            raise InputError(
                f"placement_group_bundle_index={self.placement_group_bundle_index!r}: "
                f"{group} has {group.bundle_count} bundles; want 0 to {group.bundle_count - 1}, or -1 for any"
            )
        object.__setattr__(self, "placement_group_bundle_index", index)


@dataclass(frozen=True)
class NodeAffinitySchedulingStrategy:
    """Run on a particular node.

    Attributes:
        node_id: its id, as `nodes()` shows it.
        soft: run elsewhere if there is no such node, instead of failing.
    """

    node_id: str
    soft: bool

    def __post_init__(self) -> None:
        if not isinstance(self.node_id, str) or not self.node_id:
            raise InputError(f"node_id={self.node_id!r}: want a node's id as a string, from nodes()")


#: "DEFAULT", "SPREAD" (over the nodes), or one of the strategies above.
SchedulingStrategy = str | PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy


def check_strategy(strategy: SchedulingStrategy | None) -> None:
    """Raise InputError unless this is a scheduling strategy, or None."""
    if isinstance(strategy, str):
        if strategy not in _NAMED_STRATEGIES:
            raise InputError(f"scheduling_strategy={strategy!r}: unknown. {nearest(strategy, _NAMED_STRATEGIES)}")
    elif not isinstance(strategy, None | PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy):
        raise InputTypeError(
            f"scheduling_strategy={strategy!r:.80}: want 'DEFAULT', 'SPREAD', a PlacementGroupSchedulingStrategy or a "
            "NodeAffinitySchedulingStrategy"
        )


def check_bundles(bundles: list[Mapping[str, float]]) -> None:
    """Raise InputError unless these are the bundles of a group: a list, none of them empty."""
    if not isinstance(bundles, list | tuple) or not bundles:
        raise InputError(f"placement_group({bundles!r:.80}): want a list of bundles, such as [{{'CPU': 1}}]")
    for index, bundle in enumerate(bundles):
        if not isinstance(bundle, Mapping):
            raise InputTypeError(f"placement_group: bundle {index} is {bundle!r:.80}; want a dict such as {{'CPU': 1}}")
        for name, amount in bundle.items():
            check_text(f"bundle {index}: a name", name)
            check_gpus(amount) if name == "GPU" else check_amount(f"bundle {index}: {name}", amount)
        if not in_units(bundle):
            raise InputError(f"placement_group: bundle {index} is {bundle!r}, which reserves nothing")


def check_in_bundle(who: str, demand: Mapping[str, int], strategy: PlacementGroupSchedulingStrategy) -> None:
    """Raise InfeasibleError if a demand can't fit into the bundle, or into any if none is named: bundles never grow."""
    group, index = strategy.placement_group, strategy.placement_group_bundle_index
    specs = group.bundle_specs if index == -1 else group.bundle_specs[index : index + 1]
    lacks = [missing(demand, in_units(spec)) for spec in specs]
    if all(lacks):
        where = f"bundle {index}" if index != -1 else f"any of the {len(lacks)} bundles"
        raise infeasible(who, f"{lacks[0]} in {where} of {group}")


def check_on_node(who: str, strategy: SchedulingStrategy | None, node_id: str) -> None:
    """Raise InfeasibleError if something is to run on another node than this one, and nowhere else."""
    if isinstance(strategy, NodeAffinitySchedulingStrategy) and not strategy.soft and strategy.node_id != node_id:
        raise InfeasibleError(f"{who} can never run: there is no node {strategy.node_id!r}. Known: {node_id!r}.")


def group_name_taken(name: str) -> str:
    """Return why a placement group is not made: another one has its name."""
    return f"a placement group named {name!r} exists. Use get_placement_group({name!r}), or another name"
