"""What engines do with the instance of an actor's class that they hold."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

_SHUTDOWN = "__ray_shutdown__"


def method_of(actor: Any, name: str) -> Callable:
    """Return a method of an actor, bound to it: that of its class, though an attribute may have the same name."""
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
            asyncio.run(result)
