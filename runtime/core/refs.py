"""References to objects: what `.remote()` and `put` return and `get` takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..exceptions import GetTimeoutError, ObjectLostError
from .current import Backend, current_engine, is_over, runtime_number, whose

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ObjectRef(Generic[T_co]):
    """Reference to an immutable object that exists or will exist; ``ObjectRef[int]`` in annotations: to an int.

    The object lives as long as any reference to it, in any process. References may be passed to tasks and actors:
    as an argument of its own a reference is replaced by its value before the call, inside a list, dict or other
    structure it arrives as a reference. It is hashable, comparable, and can be awaited.

    Attributes:
        id: the object's.
        runtime: which of this process's runtimes it is of; see `current.runtime_number`.
    """

    __slots__ = ("__weakref__", "_dropped", "id", "runtime")

    def __init__(self, object_id: bytes, dropped: Callable[[bytes], None]) -> None:
        self.id = object_id
        self._dropped, self.runtime = dropped, runtime_number()

    def __del__(self) -> None:
        # May run inside any allocation, so `dropped` must neither block nor take a lock.
        self._dropped(self.id)

    def binary(self) -> bytes:
        """Return the id."""
        return self.id

    def hex(self) -> str:
        """Return the id as hexadecimal text."""
        return self.id.hex()

    def future(self) -> Future[T_co]:
        """Return a `concurrent.futures.Future` of the value."""
        check_runtime(self)
        return current_engine().future(self)

    def as_future(self) -> asyncio.Future[T_co]:
        """Return an `asyncio.Future` of the value, on the event loop that runs."""
        import asyncio  # as in `until_ready`

        check_runtime(self)
        return asyncio.ensure_future(current_engine().value(self))

    def __await__(self) -> Generator[Any, None, T_co]:
        check_runtime(self)
        return current_engine().value(self).__await__()

    def __repr__(self) -> str:
        return f"ObjectRef({short(self.id)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[T_co]:
        return self  # the object cannot change

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled by hand, since nobody would know that the copy exists. "
            "Pass it to a task or an actor, return it, or put it inside another object"
        )


def one_or_all(refs: list[ObjectRef]) -> Any:
    """Return what `.remote()` does: the one reference to the result, else the list of them; None without any."""
    if len(refs) == 1:
        return refs[0]
    return refs or None


def check_runtime(ref: ObjectRef[T]) -> ObjectRef[T]:
    """Return a reference; raise ObjectLostError if it is of a runtime that has been shut down."""
    if is_over(ref.runtime):
        raise object_gone(ref.id, ref.runtime)
    return ref


def check_all(refs: Collection[ObjectRef]) -> None:
    """Raise ObjectLostError if one of the references is of a runtime that has been shut down."""
    over = {number for number in {ref.runtime for ref in refs} if is_over(number)}
    for ref in refs if over else ():
        check_runtime(ref)


async def value_of(ref: ObjectRef, engine: Backend) -> Any:
    """Return a reference's value, unpickled in the thread that wants it; nothing blocks the event loop."""
    while True:
        await until_ready(ref, engine)
        try:
            return engine.waits.get([ref], 0)[0]
        except GetTimeoutError as error:
            if error.__cause__ is not None:  # the task's own
                raise
        # Its block was lost: it is being made again.


async def until_ready(ref: ObjectRef, engine: Backend) -> None:
    """Wait, without blocking the event loop, until a reference's value is there."""
    import asyncio  # only where it is used already: it takes as long to import as all of the runtime's API

    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def arrived() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_finish, future)

    engine.when_ready(ref, arrived)
    await future


def _finish(future: asyncio.Future) -> None:
    if not future.done():  # the one who waited may have been cancelled
        future.set_result(None)


def object_gone(object_id: bytes, number: int | None = None) -> ObjectLostError:
    """Return the error of a reference that has outlived its runtime, the one of that number."""
    return ObjectLostError(f"object {short(object_id)} was of {whose(number)}; make it again")


def short(object_id: bytes) -> str:
    """Return the id's readable form: its last ten hexadecimal digits, the ones that differ within a session."""
    return object_id.hex()[-10:]
