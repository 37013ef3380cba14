"""Results in the order in which they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..api.remote import RemoteFunction, remote
from ..api.verbs import get
from ..core.arguments import as_int, as_timeout
from ..core.engine import current_engine
from ..core.handles import ActorMethod
from ..core.refs import ObjectRef, check_runtime
from ..exceptions import GetTimeoutError, InputError, InputTypeError


def as_completed(
    refs: Sequence[ObjectRef], *, chunk_size: int = 10, timeout: float | None = None, yield_obj_refs: bool = False
) -> Iterator[Any]:
    """Yield the values of references, each as soon as it is there.

    Args:
        refs: the references, without duplicates.
        chunk_size: how many Ray gets together. Here each is yielded as soon as it is there, whatever it says.
        timeout: seconds for all of them together; None waits without limit.
        yield_obj_refs: yield the references instead of their values: `get` of one that has failed raises.

    Raises:
        GetTimeoutError: the time ran out; says how many are missing.
        Exception: what a task raised, when its turn comes.
    """
    refs = [refs] if isinstance(refs, ObjectRef) else refs
    for ref in refs:
        if type(ref) is not ObjectRef:
            raise InputTypeError(f"as_completed takes ObjectRefs, not a {type(ref).__name__} ({ref!r:.80})")
        check_runtime(ref)
    _check_size("as_completed: chunk_size", chunk_size)
    if len(set(refs)) != len(refs):
        raise InputError(f"as_completed: {len(refs)} references are given, but only {len(set(refs))} different ones")
    return _completed(refs, as_timeout("as_completed", timeout), yield_obj_refs)


def _check_size(name: str, given: Any) -> int:
    size = as_int(given)
    if size is None or size < 1:
        raise InputError(f"{name}={given!r}: want an integer of at least 1")
    return size


def _completed(refs: Sequence[ObjectRef], timeout: float | None, yield_obj_refs: bool) -> Iterator[Any]:
    queue = current_engine().ready_queue()
    for ref in refs:
        queue.add(ref)
    deadline = None if timeout is None else time.monotonic() + timeout
    for missing in range(len(refs), 0, -1):
        ready = queue.pop(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if ready is None:
            raise GetTimeoutError(f"as_completed: {missing} of {len(refs)} objects were not ready after {timeout} s")
        yield ready if yield_obj_refs else get(ready)


def map_unordered(
    fn: RemoteFunction | ActorMethod | Callable[[Any], Any],
    items: Iterable[Any],
    *,
    backpressure_size: int = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
) -> Iterator[Any]:
    """Call a function with each item, and yield what the calls return, each as soon as it is there.

    Args:
        fn: a remote function, an actor's method, or an ordinary function, which runs as tasks then.
        items: the arguments; taken from as calls are made, so they may be without end.
        backpressure_size: how many calls may be under way or not taken at the same time.
        chunk_size: as for `as_completed`.
        yield_obj_refs: yield references instead of values.

    Raises:
        Exception: what a call raised, when its turn comes.
    """
    most = _check_size("map_unordered: backpressure_size", backpressure_size)
    _check_size("map_unordered: chunk_size", chunk_size)
    if not isinstance(fn, RemoteFunction | ActorMethod):
        fn = remote(fn)
    return _mapped(fn, items, most, yield_obj_refs)


def _mapped(function: Any, items: Iterable[Any], most: int, yield_obj_refs: bool) -> Iterator[Any]:
    queue = current_engine().ready_queue()
    under_way = 0
    for item in items:
        queue.add(function.remote(item))
        under_way += 1
        if under_way == most:
            under_way -= 1
            yield _next(queue, yield_obj_refs)
    for _ in range(under_way):
        yield _next(queue, yield_obj_refs)


def _next(queue: Any, yield_obj_refs: bool) -> Any:
    ready = queue.pop(None)
    return ready if yield_obj_refs else get(ready)
