"""What there is to an exception beside its `args`, and how it is rebuilt from that without its constructor.

A user's ``__init__`` may want other arguments than it has passed on to `args`, or have effects, so it is not called:
only the nearest built-in base's, since some of those keep what they know nowhere else. Fields in slots, and those that
C code keeps, such as `ImportError.name`, are read and written by their descriptors, and ``__dict__`` is written as it
is: a ``__setattr__`` that refuses, as that of a frozen dataclass, is never asked. Who says himself how he is to be
pickled (``__reduce__``, copyreg) is pickled so.
"""

from __future__ import annotations

import contextlib
import copyreg
from types import MemberDescriptorType
from typing import Any

_Fields = list[tuple[type, dict[str, Any]]]

# Those of every exception, which are set when it is raised; and the object that lacked an attribute, which may be
# anything, large or never meant to leave its process. Plain pickle leaves it out, too.
_NOT_CARRIED = {
    BaseException: frozenset(name for name, it in vars(BaseException).items() if type(it) is MemberDescriptorType),
    AttributeError: frozenset({"obj"}),
}


def reduce_exception(value: Any) -> Any:
    """Return how an exception travels, in the form of `__reduce__`; None: as plain pickle sends it, or it is none."""
    kind = type(value)
    if not isinstance(value, BaseException) or not _is_reduced_as_built_in(kind):
        return None
    return _make, (kind, _made_from(value)), (value.args, vars(value), _fields_of(value)), None, None, _fill


def set_cause(error: Any, cause: BaseException) -> None:
    """Set ``__cause__``, also of an exception that refuses to be written to."""
    vars(BaseException)["__cause__"].__set__(error, cause)


def _is_reduced_as_built_in(kind: type[BaseException]) -> bool:
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and type(kind.__reduce__).__name__ == "method_descriptor"
        and kind not in copyreg.dispatch_table
    )


def _made_from(error: Any) -> tuple[Any, ...]:
    """Return what the built-in part of an exception was made from."""
    if isinstance(error, BaseExceptionGroup):  # a subclass with a `__new__` of its own may have other `args`
        return error.message, error.exceptions
    return error.__reduce__()[1]  # `args`, and more for OSError with a file name


def _fields_of(error: BaseException) -> _Fields:
    """Return what slots and C code hold of an exception, by the class that they belong to."""
    found: _Fields = []
    kind: Any
    for kind in type(error).__mro__:
        skipped = _NOT_CARRIED.get(kind, ())
        fields = {}
        for name, member in vars(kind).items():
            if type(member) is MemberDescriptorType and name not in skipped:
                with contextlib.suppress(AttributeError):  # a slot that nothing was written to
                    fields[name] = member.__get__(error)
        if fields:
            found.append((kind, fields))
    return found


def _make(kind: type[BaseException], made_from: tuple[Any, ...]) -> BaseException:
    error = _built_in(kind, "__new__", "builtin_function_or_method")(kind, *made_from)
    # `args` may be anything by now; what this would find out, such as the number of an OSError, is set as a field then.
    with contextlib.suppress(TypeError, ValueError):
        _built_in(kind, "__init__", "wrapper_descriptor")(error, *made_from)
    return error


def _built_in(kind: type[BaseException], name: str, sort: str) -> Any:
    """Return a method of the nearest class that is written in C."""
    for base in kind.__mro__:
        method = vars(base).get(name)
        if type(method).__name__ == sort:
            return method
    raise TypeError(f"{kind.__name__} has no built-in {name}")


def _fill(error: Any, state: tuple[tuple[Any, ...], dict[str, Any], _Fields]) -> None:
    args, attributes, fields = state
    for owner, values in fields:
        for name, value in values.items():
            field = vars(owner)[name]
            # One that C code has not set reads as None, too, but shows once it is written. One that cannot be written
            # was set by `_make`.
            if value is not None or getattr(error, name, ...) is not None:
                with contextlib.suppress(AttributeError, TypeError):
                    field.__set__(error, value)
    vars(BaseException)["args"].__set__(error, args)
    if type(error).__setstate__ is BaseException.__setstate__:
        error.__dict__.update(attributes)
    elif attributes:
        error.__setstate__(attributes)
