"""Generators of references: what a task or a method that yields its values one by one returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol, TypeVar

from ..exceptions import ObjectLostError
from .current import current_engine, is_over, runtime_number, whose
from .refs import ObjectRef, short, until_ready

T = TypeVar("T")


class Stream(Protocol):
    """The values of one task that have not been taken, as an engine keeps them."""

    def head(self) -> ObjectRef | None:
        """Return the object that the next value will be, or is; None at the end."""

    def take(self, head: ObjectRef) -> bool:
        """Take the value, which is there; False if it is the end after all, or another thread was quicker."""

    def is_finished(self) -> bool:
        """Whether the task has ended and all its values are taken."""

    def completed(self) -> ObjectRef:
        """Return a reference that is ready when the task has ended."""

    def cancel(self, force: bool, recursive: bool) -> None:
        """Cancel the task."""

    def close(self) -> None:
        """Drop what was not taken, and have no more made."""


class ObjectRefGenerator(Iterator[ObjectRef[T]], AsyncIterator[ObjectRef[T]]):
    """The references of a stream of values, each as soon as its value is there.

    ``for ref in generator`` and ``async for ref in generator`` wait for the next value; `runtime.wait` takes generators
    beside references, and counts one as ready when its next value is there or it is at its end. An exception of the
    task is the last reference: `get` of it raises. The task is stopped when the generator is closed or nobody has it
    any more; values that were not taken are dropped then.

    It belongs to the process that made the call and cannot be sent to others.
    """

    __slots__ = ("__weakref__", "_handle", "_runtime", "_stream")

    def __init__(self, stream: Stream, handle: ObjectRef | None = None) -> None:
        self._stream, self._handle, self._runtime = stream, handle, runtime_number()

    def _check(self) -> Stream:
        if is_over(self._runtime):
            raise ObjectLostError(f"{self!r} is of {whose(self._runtime)}; make the call again")
        return self._stream

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        while (head := self._check().head()) is not None:
            current_engine().waits.wait([head], 1, None)
            if self._stream.take(head):
                return head
        raise StopIteration

    def next_ready(self) -> bool:
        """Whether the next value is there, so that `next` would not wait; False at the end, which `is_finished` tells.

        To wait for it with a time limit: ``runtime.wait([generator], timeout=…)``.
        """
        head = self._check().head()
        return head is not None and bool(current_engine().waits.wait([head], 1, 0)[0]) and not self.is_finished()

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        while (head := self._check().head()) is not None:
            await until_ready(head, current_engine())
            if self._stream.take(head):
                return head
        raise StopAsyncIteration

    def is_finished(self) -> bool:
        """Whether the task has ended and all its values are taken, so that `next` would stop."""
        return self._check().is_finished()

    def completed(self) -> ObjectRef:
        """Return a reference that is ready when the task has ended; `get` of it raises what the task raised."""
        return self._check().completed()

    def awaited(self) -> ObjectRef:
        """Return a reference that is ready when `next` would not wait."""
        return self._check().head() or self._stream.completed()

    def cancel(self, force: bool, recursive: bool) -> None:
        """Cancel the task; see `shoal.runtime.cancel`."""
        self._check().cancel(force, recursive)

    def close(self) -> None:
        """Stop the task at its next ``yield``, and drop the values that were not taken."""
        if not is_over(self._runtime):  # else there is nothing left of it
            self._stream.close()

    def __repr__(self) -> str:
        return "ObjectRefGenerator" if self._handle is None else f"ObjectRefGenerator({short(self._handle.id)})"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be sent to another process: its values are taken one by one, by the process that made "
            "the call. Send the references that it yields, or have a generator of its own made there"
        )
