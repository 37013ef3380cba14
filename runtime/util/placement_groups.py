"""Placement groups: resources reserved together, for tasks and actors that must run beside each other or apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import structs

from ..core.arguments import check_text, in_plain_numbers
from ..core.engine import current_engine
from ..core.reports.rows import PlacementGroupState
from ..core.scheduling import GROUP_STRATEGIES, PlacementGroup, check_bundles
from ..exceptions import InputError, nearest


def placement_group(
    bundles: list[Mapping[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: Literal["detached"] | None = None,
) -> PlacementGroup:
    """Reserve resources in bundles, all of them or, until they are free, none. Returns at once.

    Args:
        bundles: the resources of each, such as ``[{"CPU": 1, "GPU": 1}, {"CPU": 1}]``.
        strategy: "PACK": on as few nodes as possible; "SPREAD": on as many as possible; "STRICT_PACK": on one node;
            "STRICT_SPREAD": each on another node.
        name: the name that `get_placement_group` finds it by.
        lifetime: None: it is removed with the driver, or the actor, that creates it; "detached": it stays until
            `remove_placement_group` or the end of the runtime.

    Raises:
        InfeasibleError: the nodes can never hold them.
        InputError: bad bundles or strategy, or a group of that name exists.
    """
    check_bundles(bundles)
    if strategy not in GROUP_STRATEGIES:
        raise InputError(f"strategy={strategy!r}: unknown. {nearest(str(strategy), GROUP_STRATEGIES)}")
    if lifetime not in (None, "detached"):
        raise InputError(f"lifetime={lifetime!r}: want None or 'detached'")
    if name != "":
        check_text("name", name)
    return current_engine().create_group(
        [in_plain_numbers(dict(bundle)) for bundle in bundles], strategy, name, lifetime == "detached"
    )


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give a group's bundles back. Actors in it are killed; its tasks raise PlacementGroupRemovedError."""
    current_engine().remove_group(_checked(placement_group))


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """Return the group of that name.

    Raises:
        InputError: there is none.
    """
    rows = [row for row in current_engine().placement_groups() if row.state != "REMOVED"]
    for row in rows:
        if placement_group_name and row.name == placement_group_name:
            return PlacementGroup(bytes.fromhex(row.placement_group_id), list(row.bundles), row.name)
    known = nearest(str(placement_group_name), [row.name for row in rows if row.name])
    raise InputError(f"get_placement_group({placement_group_name!r}): there is none of that name. {known}".rstrip())


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """Return all about a group; without one, about all groups by id in hexadecimal.

    Each is a dict of placement_group_id, name, strategy, state (PENDING, CREATED, REMOVED), bundles by index,
    bundles_to_node_id, creator, reason.
    """
    rows = {row.placement_group_id: _in_rays_names(row) for row in current_engine().placement_groups()}
    if placement_group is None:
        return rows
    return rows.get(_checked(placement_group).id.hex(), {})


def _in_rays_names(row: PlacementGroupState) -> dict[str, Any]:
    told: dict[str, Any] = structs.asdict(row)
    node_ids = told.pop("node_ids") or [""] * len(row.bundles)
    told |= {"bundles": dict(enumerate(row.bundles)), "bundles_to_node_id": dict(enumerate(node_ids))}
    return told | {"creator": told.pop("creator_id")}


def get_current_placement_group() -> PlacementGroup | None:
    """Return the group that this task or actor runs in; None if it runs in none, and in a driver."""
    return current_engine().holding().group


def _checked(group: PlacementGroup) -> PlacementGroup:
    if not isinstance(group, PlacementGroup):
        raise InputError(f"want a placement group, not {group!r:.80}")
    return group
