"""The user's functions and classes as Ray is given them: themselves, or stand-ins where Ray cannot take them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NoReturn

import ray

from ..core.engine import ActorId
from ..core.options import STREAMING, MethodOptions
from ..core.results import exit_code, values_of
from ..exceptions import PlacementGroupRemovedError
from .translation import in_their_names


def function(target: Callable) -> Callable:
    """Return what calls a target as a function that Ray can read: it takes nothing else for tasks."""
    is_plain = inspect.isfunction(target) and not hasattr(target, "__wrapped__")
    return target if is_plain else _named_like(target, _called(target))


def _called(target: Callable) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        return target(*args, **kwargs)

    return call


def generator(target: Callable) -> Callable:
    """Return a function that yields what another returns an iterator of."""

    def values(*args: Any, **kwargs: Any) -> Iterator[Any]:
        # Ray 2.60 sends something into generators, which `yield from` would pass on to what cannot take it.
        for value in values_of(target(*args, **kwargs)):  # noqa: UP028
            yield value

    return _named_like(target, values)


def _named_like(target: Callable, call: Any) -> Callable:
    """Return `call` as it stands for a target; Ray, which looks through wrappers for what they take, looks at it."""
    functools.update_wrapper(call, target)
    del call.__wrapped__
    with contextlib.suppress(ValueError):  # what is written in C may not say what it takes
        call.__signature__ = inspect.signature(target, follow_wrapped=False)
    return call


def actor_class(cls: Any, methods: Mapping[str, MethodOptions]) -> Any:
    """Return an actor's class as Ray is given it: methods with their options, and those changed that Ray cannot run."""
    changed: dict[str, Any] = {}
    for name, options in {"__init__": MethodOptions(), **methods}.items():
        member, said = inspect.getattr_static(cls, name), in_their_names(options)
        # Static and class methods are no functions there: they stay as they are, and take no `self`.
        if not inspect.isfunction(member):
            continue
        if inspect.iscoroutinefunction(member):
            changed[name] = _named_like(member, _awaited(member))
        elif inspect.isasyncgenfunction(member):
            changed[name] = _named_like(member, _awaited_values(member))
        elif options.num_returns == STREAMING:
            changed[name] = generator(member)
        elif said or hasattr(member, "__wrapped__") or name == "__init__":  # Ray writes into it: not into the user's
            changed[name] = _named_like(member, _called(member))
        if said:
            ray.method(**said)(changed[name])
    changed |= {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return types.new_class(cls.__name__, (cls,), {}, lambda body: body.update(changed))


def _awaited(method: Callable) -> Callable:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with _leaving():
            return await method(*args, **kwargs)

    return call


def _awaited_values(method: Callable) -> Callable:
    async def values(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with _leaving():
            async for value in method(*args, **kwargs):
                yield value

    return values


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    """End the actor at SystemExit: Ray's event loop would die of it, and calls wait."""
    try:
        yield
    except SystemExit as request:
        if type(request) is SystemExit and request.code:
            os._exit(exit_code(request))
        ray.actor.exit_actor()


def removed(group: str) -> NoReturn:
    """Raise the error of a placement group that was removed."""
    raise PlacementGroupRemovedError(f"{group} is gone: it was removed")


def actor(handle: Any) -> ActorId:
    """Return the actor behind a handle of Ray's, also of one that another program has made; without its lifetime."""
    methods = {name: _method_options(handle, name) for name in handle._ray_method_signatures}
    known = {name: options for name, options in methods.items() if options is not None}
    cls = handle._ray_actor_creation_function_descriptor.class_name.rpartition("<locals>.")[2]
    return ActorId(handle._actor_id.binary(), None, cls, known, groups=None)


def _method_options(handle: Any, name: str) -> MethodOptions | None:
    count, room = (
        said.get(name)
        for said in (handle._ray_method_num_returns, handle._ray_method_generator_backpressure_num_objects)
    )
    if name == "__init__" or name.startswith("__ray_") or count == "dynamic":
        return None
    if count is None:
        count = "streaming" if handle._ray_method_is_generator.get(name) else 1
    return MethodOptions.of(
        num_returns=count,
        generator_backpressure=None if room is None else max(0, room),
        max_task_retries=handle._ray_method_max_task_retries.get(name),
        retry_exceptions=handle._ray_method_retry_exceptions.get(name),
    )
