"""How functions and classes travel: serialised once, with a hash that says whether one is there already."""

import hashlib
from collections.abc import Callable

from ..current import is_over
from ..engine import Function
from . import serialization


def callable_name(target: Callable) -> str:
    """Return the name of a function or class for messages, as it is written where it can be seen: no outer function."""
    return getattr(target, "__qualname__", type(target).__name__).rpartition("<locals>.")[2]


def as_function(target: Callable) -> Function:
    """Serialise a callable, its out-of-band buffers included."""
    stream, buffers, refs = serialization.dumps(target, is_code=True)
    payload = serialization.dumps((stream, [bytes(b.raw()) for b in buffers]))[0]
    return Function(
        callable_name(target), hashlib.blake2b(payload, digest_size=16).digest(), payload, target, tuple(refs)
    )


def up_to_date(function: Function | None, target: Callable) -> Function:
    """Return a callable as it was serialised, or anew if that was with references of an earlier runtime."""
    if function is None or any(is_over(ref.runtime) for ref in function.captured):
        return as_function(target)
    return function


def load_function(payload: bytes) -> Callable:
    """Rebuild the callable of a `Function` from its payload."""
    return serialization.loads(*serialization.loads(payload))
