"""The methods that can be called of an actor, and what their calls do unless they say otherwise."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ..exceptions import InputError
from .actors.instances import METHODS_OF_ALL
from .handles import ActorHandle
from .options import DEFAULT_METHOD, GENERATOR_METHOD, MethodOptions

T = TypeVar("T")

_METHOD_OPTIONS = "__shoal_method_options__"
# Special methods that are for Python or for us to call, on the instance itself, or that are every actor's.
_NOT_REMOTE = {
    *METHODS_OF_ALL,
    "__checkpoint__",
    "__class_getitem__",
    "__del__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__ray_shutdown__",
    "__restore__",
    "__setstate__",
}


def _yields(target: Any) -> bool:
    return inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target)


def with_returns(target: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a function or method: one that yields its values gives a stream, unless they say no."""
    if options.get("num_returns") is None and _yields(target):
        return options | {"num_returns": "streaming"}
    return options


def method(**options: Any) -> Callable[[T], T]:
    """Decorate a method of an actor class with what its calls do unless they say otherwise (`.options`).

    Options: num_returns (1; "streaming" for methods that yield); generator_backpressure; concurrency_group;
    max_task_retries and retry_exceptions, instead of the actor's; name, for messages.

    Raises:
        InputError: unknown option or bad value.
    """
    if not options:
        raise InputError("use @method(option=value, …); a method without options needs no decorator")

    def decorate(function: T) -> T:
        setattr(function, _METHOD_OPTIONS, MethodOptions.of(**with_returns(function, options)))
        return function

    return decorate


def method_table(cls: type) -> dict[str, MethodOptions]:
    """Return the methods of an actor's class that can be called remotely, with their options."""
    table = {}
    for name, member in inspect.getmembers(cls, callable):
        if not name.startswith("__") or _is_special_method(name, member):
            default = GENERATOR_METHOD if _yields(member) else DEFAULT_METHOD
            table[name] = getattr(member, _METHOD_OPTIONS, default)
    return table


def _is_special_method(name: str, member: Any) -> bool:
    """Return whether ``handle.__name__.remote(…)`` calls the actor's: what handles have, too, is about the handle."""
    is_own = inspect.isfunction(member) or inspect.ismethod(member)  # not one of `object` or of a class written in C
    return is_own and name not in _NOT_REMOTE and name not in dir(ActorHandle)
