"""From `init` to `shutdown`: what a runtime is started with, what it has become, what is closed before it ends."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Never, Protocol

from ..core import current
from ..core.arguments import refuse_unknown
from ..core.engine import Engine, current_engine, running_engine
from ..core.settings import Settings
from ..exceptions import InputError
from ..exceptions.elsewhere import SETTINGS
from . import engines

logger = logging.getLogger("shoal")


@dataclass(frozen=True)
class RuntimeInfo(AbstractContextManager["RuntimeInfo"]):
    """What `init` has started; ``with init() as info:`` ends it with the block, as `shutdown` does.

    Attributes:
        engine: "native", "serial" or "ray".
        address: "HOST:PORT" at which further nodes may join, or "".
        job_id, node_id: of this program, and where it runs; hexadecimal text.
        namespace: where the names of its actors belong.
        python_version: such as "3.12.4".
    """

    engine: str
    address: str
    job_id: str
    node_id: str
    namespace: str
    python_version: str = ".".join(map(str, sys.version_info[:3]))

    @property
    def address_info(self) -> dict[str, str]:
        """The address and the node's id, under Ray's names for them."""
        return {"address": self.address, "node_id": self.node_id}

    def __exit__(self, *exception: object) -> None:
        shutdown()


def init(
    engine: str | None = None,
    *,
    address: str | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    memory: float | None = None,
    resources: dict[str, float] | None = None,
    preload: Sequence[str] | None = None,
    log_to_driver: bool = True,
    log_directory: str | None = None,
    object_store_memory: int | None = None,
    object_spilling_directory: str | None = None,
    memory_usage_threshold: float = 0.95,
    runtime_env: Mapping[str, Any] | None = None,
    max_lineage_bytes: int = 1 << 30,
    infeasible: Literal["raise", "wait"] = "raise",
    record_call_sites: bool = False,
    metrics_port: int | None = None,
    listen: str | None = None,
    namespace: str | None = None,
    ignore_reinit_error: bool = False,
    **unknown: Never,
) -> RuntimeInfo:
    """Start the runtime; ``with init(…):`` ends it with the block. The first use of `remote`, `put` … does it, too.

    Args:
        engine: "native" (processes; the default on Linux), "serial" (all in this one, to debug; default elsewhere) or
            "ray" (a Ray cluster). None: what the environment variable SHOAL_ENGINE says, else the default.
        address: for engine="ray": the cluster, as "auto" or "ray-head:6379"; else SHOAL_ADDRESS, RAY_ADDRESS, its own.
        num_cpus: CPUs that tasks may use at the same time; default: the cores this process may run on.
        num_gpus: GPUs; default: those that CUDA_VISIBLE_DEVICES or the NVIDIA driver shows.
        memory: bytes that tasks and actors may ask for with ``memory=``; default: seven tenths of the machine's.
        resources: further resources by name, in amounts of your choosing.
        preload: modules that workers have imported when they start (`init` does not wait for that); default: those of
            numpy, gymnasium and torch that this process has imported.
        log_to_driver: show what workers print.
        log_directory: where the logs of the latest five runs are; default: SHOAL_LOG_DIRECTORY, or TMPDIR/shoal-<uid>.
        memory_usage_threshold: the part of the machine's (or container's) memory, 0 to 1, above which a worker is
            ended, one whose task is retried if there is any: better than the kernel's choice. 1: never.
        namespace: where the names of this program's actors belong; default: one of its own.
        runtime_env: surroundings of all tasks and actors; see `RuntimeEnv`.
        max_lineage_bytes: how much each process may keep to make lost objects again: the tasks that made its large
            objects, with their arguments. What is beyond is dropped, oldest first. (Ray has a limit of its own.)
        infeasible: "raise" at once for what no node can ever meet, or "wait" for new nodes (not on the serial engine).
        metrics_port: serve metrics for Prometheus there, to this machine alone; 0: any free port, see `nodes()`.
        record_call_sites: note where each object is made, for `state.memory()`; also SHOAL_RECORD_CALL_SITES=1.
        object_store_memory: bytes for large values; default: SHOAL_OBJECT_STORE_MEMORY, or 3 tenths of the machine's
            memory. Where it is full, the least recently used go to `object_spilling_directory` (default: TMPDIR).
        listen: "HOST:PORT" at which other nodes may join (`shoal node --join`); port 0 takes any free one, see
            `cluster_address`. Whoever has the token (see `cluster_token`) runs code here: use 127.0.0.1, or TLS.
        ignore_reinit_error: do nothing, instead of raising, if the runtime is running.

    Raises:
        InputError: a bad argument, or the runtime is running already.
    """
    given = _settings(**locals())
    if not _is_running(ignore_reinit_error):
        _begin(engines.start(engine, Settings(**given)))
    return _info(current_engine())


def _settings(*, engine: Any, ignore_reinit_error: Any, unknown: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """Return those arguments of `init` that have their names and their checks in `Settings`."""
    refuse_unknown("init has no argument", unknown, given, SETTINGS)
    return given


def _info(engine: Engine) -> RuntimeInfo:
    here = engine.whereabouts
    return RuntimeInfo(engine.name, engine.address, here.job, here.node, here.namespace)


def _begin(engine: Engine) -> None:
    current.set_engine(engine)
    for key, payload in current.published.items():
        engine.publish(key, payload)


def _is_running(is_fine: bool) -> bool:
    if running_engine() is None or is_fine:
        return running_engine() is not None
    raise InputError("the runtime is running already. Call shutdown() first, or pass ignore_reinit_error=True")


def shutdown() -> None:
    """End the runtime: all tasks, actors, objects and processes. Does nothing in a worker, and if it isn't running.

    What asked for it with `close_before_shutdown`, as trainings do, is closed first. Threads that wait for something
    are raised a ShoalError that says so.
    """
    engine = running_engine()
    if engine is None:
        return
    _close_all()
    ended = True
    try:
        ended = engine.shutdown()
    finally:
        if ended:
            current.set_engine(None)


def guard_signals() -> None:
    """Have a Ctrl-C or SIGTERM wait for a good moment, whose handler was installed after `init`.

    Where a handler raises, as that of Ctrl-C does, it must not do so while a message is half read. `init` sees to it
    for the handlers that are there; call this in the main thread after installing another one.
    """
    engine = running_engine()
    if engine is not None:
        engine.guard_signals()


def is_initialized() -> bool:
    """Return whether the runtime is running."""
    return running_engine() is not None


def engine_name() -> str | None:
    """Return the name of the engine that runs ("native", "serial"), or None if the runtime isn't running."""
    engine = running_engine()
    return None if engine is None else engine.name


# What is closed before ------------------------------------------------------------------------------------------------


class Closable(Protocol):
    """What has something to give back, such as a training its environments."""

    def close(self) -> None:
        """Give it back, in bounded time; a second call does nothing."""


# With the process that asked: what a forked child inherits is its parent's.
_to_close: weakref.WeakKeyDictionary[Closable, int] = weakref.WeakKeyDictionary()


def close_before_shutdown(closable: Closable) -> None:
    """Register an object whose `close` is called when the runtime is shut down, if it still lives then."""
    _to_close[closable] = os.getpid()


def _close_all() -> None:
    """Close what asked for it; what fails is logged, since the runtime ends all the same."""
    closables = [closable for closable, process in list(_to_close.items()) if process == os.getpid()]
    _to_close.clear()
    for closable in closables:
        try:
            closable.close()
        except Exception as error:
            logger.warning("closing %s before the shutdown failed: %r", type(closable).__name__, error)


current.set_default_starter(lambda: _begin(engines.start(None, Settings())))
atexit.register(shutdown)
