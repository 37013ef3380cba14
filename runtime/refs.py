"""References to objects: what `.remote()` and `put` return and `get` takes."""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from .context import current_engine


class ObjectRef:
    """Reference to an immutable object that exists or will exist.

    The object lives as long as any reference to it, in any process. References may be passed to tasks and actors:
    as an argument of its own a reference is replaced by its value before the call, inside a list, dict or other
    structure it arrives as a reference. It is hashable, comparable, and can be awaited.
    """

    __slots__ = ("__weakref__", "_dropped", "id")

    def __init__(self, object_id: bytes, dropped: Callable[[bytes], None]) -> None:
        self.id = object_id
        self._dropped = dropped

    def __del__(self) -> None:
        # May run inside any allocation, so `dropped` must neither block nor take a lock.
        self._dropped(self.id)

    def hex(self) -> str:
        """Return the id as hexadecimal text."""
        return self.id.hex()

    def future(self) -> Future:
        """Return a `concurrent.futures.Future` of the value."""
        return current_engine().future(self)

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self.future()).__await__()

    def __repr__(self) -> str:
        return f"ObjectRef({short(self.id)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled by hand, since nobody would know that the copy exists. "
            "Pass it to a task or an actor, return it, or put it inside another object"
        )


def short(object_id: bytes) -> str:
    """Return the id's readable form: its last ten hexadecimal digits, the ones that differ within a session."""
    return object_id.hex()[-10:]
