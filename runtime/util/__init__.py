"""Tools around the runtime's core, under the names that Ray gives them."""

from typing import TYPE_CHECKING, Any

from ..exceptions.elsewhere import TOOLS, missing
from . import metrics
from .actor_pool import ActorPool
from .completion import as_completed, map_unordered
from .named_actors import list_named_actors
from .placement_groups import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from .queue import Empty, Full, Queue
from .serializers import deregister_serializer, inspect_serializability, register_serializer

__all__ = [
    "ActorPool",
    "Empty",
    "Full",
    "Queue",
    "as_completed",
    "deregister_serializer",
    "get_current_placement_group",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "map_unordered",
    "metrics",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]


if not TYPE_CHECKING:  # a type checker is to find what is missing before the program runs

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name, TOOLS)
