"""The public verbs of the runtime: Ray's core API, in Ray's names and meaning, on whichever engine runs."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Never, TypeVar, overload

from . import current, engines
from .arguments import as_int, as_timeout, check_flag, check_name, check_text, refuse_unknown
from .closing import close_all
from .elsewhere import SETTINGS
from .engine import Engine, current_engine, running_engine
from .exceptions import InputError, InputTypeError, nearest
from .generators import ObjectRefGenerator
from .refs import ObjectRef, check_all, check_runtime
from .remote import ActorHandle, make_remote
from .settings import Settings

T = TypeVar("T")


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
    close_all()
    ended = True
    try:
        ended = engine.shutdown()
    finally:
        if ended:
            current.set_engine(None)


def is_initialized() -> bool:
    """Return whether the runtime is running."""
    return running_engine() is not None


def engine_name() -> str | None:
    """Return the name of the engine that runs ("native", "serial"), or None if the runtime isn't running."""
    engine = running_engine()
    return None if engine is None else engine.name


def remote(*target: Any, **options: Any) -> Any:
    """Make a function a task or a class an actor: ``@remote`` or ``@remote(num_cpus=2, …)``.

    Options of both: num_cpus, num_gpus, memory, resources, scheduling_strategy, name, runtime_env. Of functions:
    num_returns (1; "streaming" for functions that yield: the call returns an `ObjectRefGenerator`), max_retries (after
    a crash of the worker, or to make a lost result again; 3), retry_exceptions (False; True or a list of exception
    types that use up retries, too), generator_backpressure (values of a stream that may wait to be taken; 0: any
    number; Ray's name for it does as well), max_calls (of this function in one worker; 0: any number). Of classes:
    max_restarts (0), max_task_retries (0), max_pending_calls (-1), checkpoint_every (calls; 1 where the class has
    ``__checkpoint__`` and ``__restore__`` and may be restarted; 0: never), lineage (True; False: values of its methods
    that are lost are not made again, so nothing is kept for that), max_concurrency (1; 1000 if a method is
    async), concurrency_groups (name → calls at a time), namespace, get_if_exists, lifetime ("detached": the actor ends
    neither with its handles nor with its creator). -1 means without limit.

    Raises:
        InputError: unknown option or bad value.
    """
    if target and (options or len(target) > 1):
        raise InputError("use @remote, or @remote(option=value, …): options are given by name")
    if target:
        return make_remote(target[0], {})
    return lambda given: make_remote(given, options)


@overload
def get(refs: ObjectRef[T], timeout: float | None = None, *, copy: bool = False) -> T: ...
@overload
def get(refs: ObjectRefGenerator[T], timeout: float | None = None, *, copy: bool = False) -> ObjectRefGenerator[T]: ...
@overload
def get(refs: Sequence[ObjectRef[T]], timeout: float | None = None, *, copy: bool = False) -> list[T]: ...
def get(refs: Any, timeout: float | None = None, *, copy: bool = False) -> Any:
    """Return the value of a reference, or the list of values of a list of them. Blocks until they are there.

    Arrays in the values lie in shared memory and are read-only: ``array.copy()``, or ``get(ref, copy=True)``, gives
    one that can be written. torch has no read-only tensors: those in the values lie in shared memory, too, and can be
    written; the kernel then copies the pages that are written, so that nobody else sees the change.

    Args:
        refs: one reference or a list of them. A generator of references is returned as it is: iterate it.
        timeout: seconds; 0 asks without waiting; None waits without limit.
        copy: give arrays and tensors memory of their own, writable.

    Raises:
        GetTimeoutError: the time ran out.
        Exception: what the task raised, as the type that it raised, with the remote traceback as its cause.
        WorkerCrashedError, ActorDiedError, ObjectLostError: the value will never be there.
    """
    if timeout is not None:
        timeout = as_timeout("get", timeout)
    if type(refs) is ObjectRef:
        check_runtime(refs)
        return current_engine().waits.get([refs], timeout, copy)[0]
    if isinstance(refs, ObjectRefGenerator):
        return refs
    checked = _check_refs("get", refs)
    return current_engine().waits.get(checked, timeout, copy)


def put(value: T, **options: Any) -> ObjectRef[T]:
    """Store a value once, so that it can be passed to many tasks without being copied each time.

    Raises:
        TypeError: the value is a reference, or cannot be sent to another process. There are no options: Ray's `_owner`
            is refused, since the process that puts an object owns it.
    """
    if options:
        name = next(iter(options))
        cure = ". The process that puts an object owns it: put it in the actor that is to own it" * (name == "_owner")
        raise TypeError(f"put got an unexpected keyword argument {name!r}{cure}")
    if isinstance(value, ObjectRef):
        raise InputTypeError(f"put({value!r}): it is a reference already; pass it on as it is")
    return current_engine().values.put(value)


def wait(
    refs: Sequence[ObjectRef | ObjectRefGenerator],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]:
    """Wait until `num_returns` of the references are ready, or `timeout` seconds are over.

    Args:
        refs: references, and generators: one of these is ready when its next value is, or when it is at its end.
        num_returns: how many to wait for.
        timeout: seconds; 0 asks without waiting; None waits without limit.
        fetch_local: count a value as ready once it is on this node; False: once it exists anywhere. On one node that is
            the same.

    Returns:
        (ready, not ready), both in the order given; at most `num_returns` are in the first list. A failed task counts
        as ready: `get` raises its exception.

    Raises:
        InputTypeError: not a list of references.
        InputError: duplicates, a negative timeout, or a num_returns that is not between 1 and the number of references.
    """
    generators: dict[ObjectRef, ObjectRefGenerator] = {}
    given = refs
    if isinstance(refs, list | tuple) and ObjectRefGenerator in map(type, refs):
        if len({id(ref) for ref in refs}) != len(refs):
            raise InputError("wait: a generator is given twice")
        awaited = [ref.awaited() if isinstance(ref, ObjectRefGenerator) else ref for ref in refs]
        generators = {a: g for a, g in zip(awaited, refs, strict=True) if isinstance(g, ObjectRefGenerator)}
        given = awaited
    checked = _check_refs("wait", given)
    timeout, count = as_timeout("wait", timeout), as_int(num_returns)
    if not checked:
        return [], []
    different = len({ref.id for ref in checked})
    if different != len(checked):
        raise InputError(f"wait: {len(checked)} references are given, but only {different} different ones")
    if count is None or not 1 <= count <= len(checked):
        raise InputError(f"wait: num_returns={num_returns!r}: want 1 to {len(checked)}, a number of references")
    ready, pending = current_engine().waits.wait(checked, count, timeout)
    if not generators:
        return ready, pending
    return [generators.get(ref, ref) for ref in ready], [generators.get(ref, ref) for ref in pending]


def _check_refs(verb: str, refs: Any) -> list[ObjectRef]:
    if isinstance(refs, ObjectRef):
        raise InputTypeError(f"{verb} takes a list of references, not one: write {verb}([ref])")
    if not isinstance(refs, list | tuple):
        raise InputTypeError(f"{verb} takes an ObjectRef or a list of them, not a {type(refs).__name__} ({refs!r:.80})")
    checked = list(refs)
    if not set(map(type, checked)) <= {ObjectRef}:
        index, odd = next((index, ref) for index, ref in enumerate(checked) if type(ref) is not ObjectRef)
        raise InputTypeError(f"{verb} takes ObjectRefs; item {index} is a {type(odd).__name__} ({odd!r:.80})")
    check_all(checked)
    return checked


def cancel(ref: ObjectRef | ObjectRefGenerator, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel a task; returns at once. `get` of what it would have returned raises TaskCancelledError.

    A task that has not begun is dropped. In one that runs, a KeyboardInterrupt is raised, also inside its `get` and
    `wait`, so ``except Exception`` does not swallow it and ``finally`` can clean up; what it returns after catching it
    is its value. Of actors' calls, those that have not begun are dropped, those of ``async def`` methods are cancelled
    as asyncio does, and generators end at their next ``yield``; others run on, and hear of it if they ask
    ``get_runtime_context().is_canceled()``. A task that has ended stays as it is.
    Cancelled tasks are not retried. On the serial engine tasks have ended by the time they could be cancelled; a
    generator is closed.

    Args:
        ref: what the task returned: a reference, in any process, or a generator.
        force: kill the task's worker instead of interrupting it; not for calls of actors: use `kill`.
        recursive: cancel also the tasks and calls that the task has submitted, and theirs.

    Raises:
        InputError: force=True for a call of an actor.
    """
    check_flag("cancel: force", force)
    check_flag("cancel: recursive", recursive)
    if isinstance(ref, ObjectRefGenerator):
        ref.cancel(force, recursive)
        return
    if type(ref) is not ObjectRef:
        raise InputTypeError(
            f"cancel takes an ObjectRef or an ObjectRefGenerator, not a {type(ref).__name__} ({ref!r:.80}). "
            "To end an actor use kill(actor)"
        )
    check_runtime(ref)
    current_engine().cancel(ref, force, recursive)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once, without letting its running call finish.

    Args:
        actor: its handle.
        no_restart: False lets an actor with restarts left come back.

    Raises:
        ActorDiedError: it is of a runtime that has been shut down.
    """
    if not isinstance(actor, ActorHandle):
        raise InputTypeError(f"kill takes an actor's handle, not a {type(actor).__name__} ({actor!r:.80})")
    check_flag("kill: no_restart", no_restart)
    known = actor._check()
    current_engine().actor_calls.kill(known, no_restart)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Return the handle of the living actor that was created with ``options(name=…)``.

    Args:
        name: the actor's name.
        namespace: where to look; default: the namespace of this job.

    Raises:
        InputError: there is none.
    """
    check_text("get_actor: name", name)
    check_name("get_actor: namespace", namespace)
    engine = current_engine()
    actor = engine.actors.find(name, namespace)
    if actor is None:
        where = namespace or engine.whereabouts.namespace
        known = nearest(name, [other for home, other in engine.actors.names() if home == where])
        hint = known or f"Create it with .options(name={name!r})"
        raise InputError(f"get_actor({name!r}): no living actor has that name in namespace {where!r}. {hint}")
    return ActorHandle(actor)


current.set_default_starter(lambda: _begin(engines.start(None, Settings())))
atexit.register(shutdown)
