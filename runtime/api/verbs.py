"""What a program does with references and handles: Ray's core API, in Ray's names and meaning, on any engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from ..core.arguments import as_int, as_timeout, check_flag, check_name, check_text
from ..core.engine import current_engine
from ..core.generators import ObjectRefGenerator
from ..core.handles import ActorHandle
from ..core.refs import ObjectRef, check_all, check_runtime
from ..exceptions import InputError, InputTypeError, nearest

T = TypeVar("T")


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
