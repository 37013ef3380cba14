"""The user's functions and classes as Ray is given them: themselves, but for what yields, and for what actors know."""

from __future__ import annotations

import functools
import inspect
import os
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import ray

from ..engine import ActorId
from ..private_loop import drive
from ..results import check_yields

_draft: ActorId | None = None


def draft_of_this_actor() -> ActorId | None:
    """Return what handles of the actor are made of that this process is; None if it is none."""
    return _draft


def _remember(draft: ActorId) -> None:
    global _draft  # what is pickled by value has globals of its own, so it must call this, which is not
    _draft = draft


def hosted(cls: type, draft: ActorId) -> type:
    """Return a class whose instances tell their process, before they are made, what handles of them are made of."""

    @functools.wraps(cls.__init__)  # type: ignore[misc]  # it is that of the user's class
    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        _remember(draft)
        cls.__init__(self, *args, **kwargs)  # type: ignore[misc]  # as above

    # Ray writes into the signature of the innermost function that it finds.
    construct.__signature__ = inspect.signature(construct)  # type: ignore[attr-defined]
    del construct.__wrapped__
    members = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    # Static and class methods are no functions there: they stay as they are, and take no `self`.
    members |= {name: yielding(member) for name, member in inspect.getmembers_static(cls, inspect.isgeneratorfunction)}
    members |= {name: _leaving(member) for name, member in inspect.getmembers_static(cls, inspect.iscoroutinefunction)}
    return types.new_class(cls.__name__, (cls,), {}, lambda body: body.update(members, __init__=construct))


def yielding(function: Callable) -> Callable:
    """Return a generator function that yields what another returns an iterator of."""

    @functools.wraps(function)
    def values(*args: Any, **kwargs: Any) -> Iterator[Any]:
        made = function(*args, **kwargs)
        check_yields(made)
        # Ray 2.60 sends something into generators, which `yield from` would pass on to what cannot take it.
        for value in drive(made) if isinstance(made, AsyncIterator) else made:
            yield value
            if _is_cancelled():
                break

    return values


def _is_cancelled() -> bool:
    """Return whether nobody wants the values of this call of an actor any more."""
    try:
        return ray.get_runtime_context().is_canceled()
    except RuntimeError:  # Ray does not say on an event loop
        return False


def _leaving(method: Callable) -> Callable:
    """Return an async method in which SystemExit ends the actor: Ray's event loop would die of it, and calls wait."""

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await method(*args, **kwargs)
        except SystemExit as request:
            if type(request) is SystemExit and request.code:
                os._exit(request.code if isinstance(request.code, int) else 1)
            ray.actor.exit_actor()

    return call


def as_function(target: Callable) -> Callable:
    """Return a function that calls something else that can be called, since Ray takes nothing else for tasks."""
    if inspect.isfunction(target):
        return target

    def call(*args: Any, **kwargs: Any) -> Any:
        return target(*args, **kwargs)

    return call
