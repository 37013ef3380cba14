"""What engines do with the instance of an actor's class that they hold."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from ..engine import current_engine

_SHUTDOWN = "__ray_shutdown__"


def _call(actor: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return function(actor, *args, **kwargs)


def _is_ready(_: Any) -> bool:
    return True


def _terminate(_: Any) -> NoReturn:
    current_engine().exit_actor()


#: Methods that every actor has, as in Ray: a function called with the instance; something to wait for; the end, after
#: the calls before it.
METHODS_OF_ALL: dict[str, Callable[..., Any]] = {
    "__ray_call__": _call,
    "__ray_ready__": _is_ready,
    "__ray_terminate__": _terminate,
}


def method_of(actor: Any, name: str) -> Callable:
    """Return a method of an actor, bound to it: that of its class, though an attribute may have the same name."""
    if name in METHODS_OF_ALL:
        return partial(METHODS_OF_ALL[name], actor)
    if name not in getattr(actor, "__dict__", ()):
        return getattr(actor, name)
    cls = type(actor)
    member = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
    return member.__get__(actor, cls) if hasattr(member, "__get__") else member


def has_shutdown(cls: type) -> bool:
    """Return whether an actor's class says what is to be done when an actor ends on purpose."""
    return hasattr(cls, _SHUTDOWN)


def shut_down(actor: Any) -> None:
    """Call an actor's ``__ray_shutdown__``, if its class has one; raises what that raises."""
    if has_shutdown(type(actor)):
        result = method_of(actor, _SHUTDOWN)()
        if inspect.iscoroutine(result):
            import asyncio  # not where a driver starts: it takes as long to import as all of the runtime's API

            asyncio.run(result)
