"""What a policy remembers of episodes, as arrays [rows, …] by name; zeros where an episode begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

Memory = Mapping[str, np.ndarray]
Leaf = TypeVar("Leaf")


def remembered_before(memory: Memory | None, initial: Memory | None, episode_start: Any) -> Memory | None:
    """What a step begins with: `memory`, with the `initial` one of as many rows where `episode_start` ([rows] bool, or
    one for all; None: nowhere) is true; all of that where `memory` is None, and None without a memory.

    Raises ValueError, naming shapes, if these are of different rows.
    """
    if initial is None:
        return None
    rows = len(next(iter(initial.values())))
    begins = np.zeros(rows, np.bool_) if episode_start is None else np.asarray(episode_start, np.bool_)
    if begins.shape not in ((), (rows,)):
        raise ValueError(f"episode_start has shape {begins.shape}, but there are {rows} observations: ({rows},)")
    if memory is None:
        return initial
    for name, wanted in initial.items():
        if name not in memory or np.shape(memory[name]) != wanted.shape:
            found = np.shape(memory[name]) if name in memory else "nothing"
            raise ValueError(f"the memory holds {name!r} of shape {found}; {rows} observations need {wanted.shape}")
    begins = np.broadcast_to(begins, (rows,))
    kept = {name: np.array(memory[name]) for name in initial}
    for leaf in kept.values():
        leaf[begins] = 0
    return kept


def joined(memories: list[Memory]) -> Memory:
    """Memories of several batches as one, in the order given."""
    return {name: np.concatenate([memory[name] for memory in memories]) for name in memories[0]}


def rows_of(memory: Memory | None, rows: slice) -> Memory | None:
    """That of some rows."""
    return None if memory is None else {name: leaf[rows] for name, leaf in memory.items()}


def of_policies(memories: Mapping[str, Mapping[str, Leaf] | None]) -> dict[str, Leaf] | None:
    """Memories of several policies as one, by "policy/name"; None if nobody remembers anything."""
    return {f"{policy}/{name}": leaf for policy, own in memories.items() for name, leaf in (own or {}).items()} or None


def of_policy(policy: str, memory: Mapping[str, Leaf] | None) -> dict[str, Leaf] | None:
    """That of one policy, out of what `of_policies` gives; None without one."""
    prefix = f"{policy}/"
    own = {name.removeprefix(prefix): leaf for name, leaf in (memory or {}).items() if name.startswith(prefix)}
    return own or None
