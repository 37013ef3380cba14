"""Whether arguments fit what is called: asked where the call is made, so that a wrong call fails there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

# A function that takes any names may be called with ever new ones.
_MOST_REMEMBERED = 100


class Parameters:
    """What a function, class or method takes.

    Whether arguments fit depends on how many there are and on their names alone, so each such shape is tried once.

    Args:
        call: how it is called, for messages.
        target: what is called; one that does not say what it takes, as some written in C, takes anything.
        bound: whether the first argument is given already, as an actor is to its methods.
    """

    __slots__ = ("_bound", "_call", "_fitting", "_signature", "_target")

    def __init__(self, call: str, target: Callable, *, bound: bool = False) -> None:
        self._call, self._target, self._bound = call, target, bound
        self._signature: inspect.Signature | None = None
        self._fitting: set[tuple[Any, ...]] = set()

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError, which says what is taken, if it cannot be called with these arguments."""
        shape = (len(args), *kwargs)
        if shape in self._fitting:
            return
        self._try(args, kwargs)
        if len(self._fitting) >= _MOST_REMEMBERED:
            self._fitting.clear()
        self._fitting.add(shape)

    def _try(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._signature is None:
            try:
                # Not what a decorator wraps: it may give arguments of its own to that.
                self._signature = inspect.signature(self._target, follow_wrapped=False)
            except (ValueError, TypeError):
                return
        try:
            self._signature.bind(*(None,) * self._bound, *args, **kwargs)
        except TypeError as error:
            taken = list(self._signature.parameters.values())
            if self._bound and taken and taken[0].kind is not inspect.Parameter.VAR_POSITIONAL:
                del taken[0]
            raise TypeError(f"{self._call}(…): {error}; it takes {inspect.Signature(taken)}") from None


def parameters_of_methods(cls: type, names: Mapping[str, Any]) -> dict[str, Parameters]:
    """Return what methods of an actor's class take: functions, static and class methods; of others it is not known."""
    found = {}
    for name in names:
        kind = inspect.getattr_static(cls, name)
        if isinstance(kind, FunctionType | staticmethod | classmethod):
            call = f"{cls.__name__}.{name}.remote"
            found[name] = Parameters(call, getattr(cls, name), bound=isinstance(kind, FunctionType))
    return found


def is_async(cls: Callable) -> bool:
    """Return whether a class has a method that is a coroutine or an asynchronous generator."""
    return any(
        inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        for _, member in inspect.getmembers(cls, inspect.isroutine)
    )
