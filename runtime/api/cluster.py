"""What concerns the runtime as a whole: arrays in its store, published values, resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cloudpickle

from ..core import current
from ..core.arguments import as_int, check_text
from ..core.engine import current_engine, running_engine
from ..core.reports.rows import DEFAULT_LIMIT, NodeState, nodes_of
from ..core.settings import Settings
from ..exceptions import InputError
from . import engines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike


def empty(shape: int | Sequence[int], dtype: DTypeLike = "float64") -> np.ndarray:
    """Return a writable array that lies in the object store already.

    `put` it, or return it from a task or an actor's method (also inside a dict, list or dataclass): that seals it in
    place, without a copy. It is read-only from then on, for the one who made it too. Without that it stays writable, is
    counted as the store's all the same, and is given back with the last array on it, or when the process ends.

    Raises:
        InputError: there is no array of that shape.
    """
    length = as_int(shape)
    sizes: tuple[int, ...] = tuple(shape) if length is None else (length,)  # type: ignore[arg-type]  # it is no number
    if any(size < 0 for size in sizes):
        raise InputError(f"empty: shape={shape!r}: want sizes of at least 0")
    return current_engine().empty(sizes, dtype)


def object_store_memory() -> int | None:
    """Return how many bytes the object store of this node may take, objects on disk left out.

    None on engines that lay arrays of `empty` elsewhere: in ordinary memory, which has no such limit.
    """
    return current_engine().store_memory()


def publish(key: str, value: Any) -> None:
    """Make a small value known under a name to every process of the runtime; a later one replaces it.

    Before `init` it is kept and published when the runtime starts.
    """
    check_text("publish: key", key)
    payload = cloudpickle.dumps(value)
    current.published[key] = payload
    engine = running_engine()
    if engine is not None:
        engine.publish(key, payload)


def lookup(key: str) -> Any:
    """Return the value published under a name, or None."""
    check_text("lookup: key", key)
    payload = current.published.get(key)
    engine = running_engine()
    if payload is None and engine is not None:
        payload = engine.lookup(key)
    return None if payload is None else cloudpickle.loads(payload)


def preload(*modules: str) -> None:
    """Import these modules in all workers that are made from now on, before they start; returns at once.

    They look for these and all other modules where this program does now, also if a folder came into its `sys.path`
    after `init`: ``preload()`` alone is enough for that.
    """
    for module in modules:
        check_text("preload: a module", module)
    current_engine().preload(modules)


def cluster_resources() -> dict[str, float]:
    """Return the resources of all nodes together, by name."""
    return current_engine().cluster_resources()


def available_resources() -> dict[str, float]:
    """Return the resources that are not in use now, by name."""
    return current_engine().available_resources()


def nodes() -> list[NodeState]:
    """Return the nodes, the head first, those that are gone last (`state` "DEAD").

    Each has its resources in all and in use, the daemon's pid, the address of its metrics. Ray's names work, too:
    ``node["NodeID"]``, ``node["Alive"]``, ``node["Resources"]``, ``node["NodeName"]``.
    """
    return nodes_of(current_engine().state([], DEFAULT_LIMIT))


def cluster_address() -> str:
    """Return the "HOST:PORT" at which further nodes may join; "" without `init(listen=…)`."""
    return current_engine().address


def cluster_token() -> str:
    """Return the secret with which nodes may join: SHOAL_TOKEN as it was at `init`, else a random one.

    Give it to `shoal node` in the environment variable SHOAL_TOKEN, or in a file. Only the driver knows it.
    """
    return current_engine().token


def become_node(
    address: str,
    token: str,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    memory: float | None = None,
    resources: dict[str, float] | None = None,
) -> None:
    """Turn this process into a node of a running cluster, which ends with the head; does not return.

    Args:
        address: the head's `cluster_address()`.
        token: the head's `cluster_token()`.
        num_cpus, num_gpus, memory, resources: as for `init`.

    Raises:
        InputError: a bad argument, or this process uses the runtime itself.
    """
    if running_engine() is not None:
        raise InputError(
            "become_node: this process uses the runtime itself. Start `shoal node` as a process of its own"
        )
    if not token:
        raise InputError("no token is given: the head's cluster_token(), in SHOAL_TOKEN or --token-file")
    settings = Settings(num_cpus=num_cpus, num_gpus=num_gpus, memory=memory, resources=resources or {}, preload=())
    engines.become_node(address, token, settings)
