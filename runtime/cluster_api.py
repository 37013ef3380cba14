"""What concerns the runtime as a whole: arrays in its store, published values, resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cloudpickle

from . import context
from .context import current_engine, running_engine
from .state import list_nodes
from .state_rows import NodeState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike


def empty(shape: int | Sequence[int], dtype: DTypeLike = "float64") -> np.ndarray:
    """Return a writable array that lies in the object store already.

    `put` it, or return it from a task or an actor's method (also inside a dict, list or dataclass): that seals it in
    place, without a copy. It is read-only from then on, for the one who made it too.
    """
    return current_engine().empty((shape,) if isinstance(shape, int) else tuple(shape), dtype)


def publish(key: str, value: Any) -> None:
    """Make a small value known under a name to every process of the runtime; a later one replaces it.

    Before `init` it is kept and published when the runtime starts.
    """
    payload = cloudpickle.dumps(value)
    context.published[key] = payload
    engine = running_engine()
    if engine is not None:
        engine.publish(key, payload)


def lookup(key: str) -> Any:
    """Return the value published under a name, or None."""
    payload = context.published.get(key)
    engine = running_engine()
    if payload is None and engine is not None:
        payload = engine.lookup(key)
    return None if payload is None else cloudpickle.loads(payload)


def preload(*modules: str) -> None:
    """Have workers made from now on start with these modules imported; returns at once."""
    current_engine().preload(modules)


def cluster_resources() -> dict[str, float]:
    """Return the resources of all nodes together, by name."""
    return current_engine().cluster_resources()


def available_resources() -> dict[str, float]:
    """Return the resources that are not in use now, by name."""
    return current_engine().available_resources()


def nodes() -> list[NodeState]:
    """Return the nodes: resources in all and in use, pid of the daemon, address of its metrics."""
    return list_nodes()
