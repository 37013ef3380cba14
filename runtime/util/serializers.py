"""Serialisers for classes that pickle cannot handle, or handles badly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..context import running_engine
from ..exceptions import InputError, InputTypeError
from ..refs import ObjectRef
from ..values import serialization

# The pickler writes these itself, without asking anybody.
_BUILT_IN = frozenset({
    type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset, type, ObjectRef,
})  # fmt: skip


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Register how instances of a class are sent to other processes: by these functions.

    The deserializer travels with each value, so receivers need no registration. A worker that makes such values itself
    and returns them registers the class, too, for instance where its module is imported.

    Args:
        cls: the class; its subclasses are not concerned.
        serializer: takes an instance and returns something that can be pickled.
        deserializer: takes what `serializer` returned and returns an instance; must itself be picklable.

    Raises:
        InputError: `cls` is not a class, or one of the built-in ones, which always travel as they are.
        TypeError: one of the functions cannot be called.
    """
    if not isinstance(cls, type):
        raise InputError(f"register_serializer({cls!r:.80}): want a class, not a {type(cls).__name__}")
    if cls in _BUILT_IN:
        raise InputError(
            f"register_serializer({cls.__name__}): built-in types always travel as they are; use a subclass"
        )
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise InputTypeError(f"register_serializer({cls.__name__}): {name}={function!r:.80} cannot be called")
    running_engine()  # one with a pickler of its own is to hear of it
    serialization.register(cls, serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Forget what `register_serializer` was told about a class; does nothing if that is nothing."""
    serialization.deregister(cls)
