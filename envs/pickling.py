"""Which part of a class, function or object cannot be sent to another process.

Pickle says only "cannot pickle '_thread.lock' object"; the user has to know which name in their program holds it.
"""

import functools
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle

_MAX_DEPTH = 12

# Members that cloudpickle makes anew.
_OF_EVERY_CLASS = frozenset({"__dict__", "__weakref__", "_abc_impl"})


def unpicklable_member(value: Any, name: str) -> str | None:
    """Return where in a value the part lies that cannot be pickled, or None if all of it can.

    Args:
        value: a class, a function or any object.
        name: what the message calls it, such as "MyEnv".

    Returns:
        for example ``MyEnv.__init__, closure variable 'lock' of type _thread.lock``.
    """
    if _picklable(value):
        return None
    return _descend(value, name, set(), 0)


def _picklable(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:  # a user's __getstate__ or __reduce__ may raise anything; whatever it is, the answer is no
        return False
    return True


def _descend(value: Any, path: str, seen: set[int], depth: int) -> str:
    seen.add(id(value))
    if depth < _MAX_DEPTH:
        for label, part in _parts(value):
            if id(part) not in seen and not _picklable(part):
                return _descend(part, path + label, seen, depth + 1)
    kind = type(value)
    return f"{path} of type {kind.__module__}.{kind.__qualname__}".replace(" of type builtins.", " of type ")


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is pickled along with a value, each with the text that its path goes on with."""
    if isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.MethodType):
        yield ", the object that it is bound to", value.__self__
        yield "", value.__func__
    elif isinstance(value, functools.partial):
        yield ", its function", value.func
        yield ", its arguments", value.args
        yield ", its arguments", value.keywords
    elif isinstance(value, staticmethod | classmethod):
        yield "", value.__func__
    elif isinstance(value, property):
        for function in (value.fget, value.fset, value.fdel):
            if function is not None:
                yield "", function
    elif isinstance(value, type):
        yield from ((f".{name}", member) for name, member in vars(value).items() if name not in _OF_EVERY_CLASS)
        yield from ((f", base class {base.__name__}", base) for base in value.__bases__ if base is not object)
    elif isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    else:
        yield from ((f", attribute {name!r}", member) for name, member in getattr(value, "__dict__", {}).items())
        yield "'s class", type(value)


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f", closure variable {name!r}", cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield f", global variable {name!r}", function.__globals__[name]
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield ", a default argument", default


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names
