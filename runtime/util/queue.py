"""A queue between tasks and actors, wherever they run: `queue.Queue`, with an actor that holds the items."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Iterable
from typing import Any

from ..api.lifecycle import engine_name
from ..api.remote import remote
from ..api.verbs import get, kill, wait
from ..core.arguments import as_int, as_timeout
from ..core.handles import ActorHandle
from ..exceptions import ActorDiedError, DeadlockError, InputError


class Empty(queue.Empty):
    """The queue had no item, or too few."""


class Full(queue.Full):
    """The queue had no room for the items."""


class _Items:
    """The actor behind a queue. Calls that wait do so in its event loop, in the order in which they came."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._queue: asyncio.Queue = asyncio.Queue(maxsize)

    async def put(self, item: Any, timeout: float | None) -> None:
        if timeout == 0:  # `wait_for` would give up before it has looked
            return await self.put_batch([item])
        try:
            await asyncio.wait_for(self._queue.put(item), timeout)
        except TimeoutError:
            raise Full(f"put: the queue still held its {self._maxsize} items after {timeout} s") from None

    async def get(self, timeout: float | None) -> Any:
        if timeout == 0:
            return (await self.get_batch(1))[0]
        try:
            return await asyncio.wait_for(self._queue.get(), timeout)
        except TimeoutError:
            raise Empty(f"get: the queue was still empty after {timeout} s") from None

    async def put_batch(self, items: list[Any]) -> None:
        room = self._maxsize - self._queue.qsize()
        if self._maxsize > 0 and len(items) > room:
            raise Full(f"{len(items)} items do not fit: the queue has room for {room} of {self._maxsize}. None was put")
        for item in items:
            self._queue.put_nowait(item)

    async def get_batch(self, count: int) -> list[Any]:
        if count > self._queue.qsize():
            raise Empty(f"{count} items were wanted, the queue has {self._queue.qsize()}. None was taken")
        return [self._queue.get_nowait() for _ in range(count)]

    async def size(self) -> int:
        return self._queue.qsize()


class Queue:
    """First in, first out, for any number of producers and consumers; pass it to tasks and actors as it is.

    Args:
        maxsize: the most items that it holds; 0 or less: without limit, as of `queue.Queue`.
        actor_options: options of the actor that holds the items, such as ``{"num_cpus": 1}``.

    The items are gone with the queue: with the last process that holds it.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        most = as_int(maxsize)
        if most is None:
            raise InputError(f"maxsize={maxsize!r}: want an integer (0 or less means: without limit)")
        self.maxsize = most
        #: What holds the items; None after `shutdown`.
        self.actor: ActorHandle | None = remote(_Items).options(**(actor_options or {})).remote(most)

    def _items(self) -> ActorHandle:
        if self.actor is None:
            raise ActorDiedError("this queue was shut down: its items are gone. Make another one")
        return self.actor

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item.

        Args:
            item: any value that can be sent.
            block: wait for room.
            timeout: seconds to wait at most; None: without limit.

        Raises:
            Full: there was no room (in time).
            InputError: `timeout` is negative.
        """
        timeout = as_timeout("put", timeout)
        if not block or _alone():
            self._now(self._items().put_batch.remote([item]), block and timeout is None, "put", Full)
        else:
            get(self._items().put.remote(item, timeout))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item; arguments and errors as for `put`, but `Empty`."""
        timeout = as_timeout("get", timeout)
        if not block or _alone():
            return self._now(self._items().get_batch.remote(1), block and timeout is None, "get", Empty)[0]
        return get(self._items().get.remote(timeout))

    @staticmethod
    def _now(ref: Any, for_ever: bool, verb: str, error: type[Exception]) -> Any:
        try:
            return get(ref)
        except error:
            if for_ever:
                raise DeadlockError(
                    f"Queue.{verb} would wait for ever: on the serial engine nothing else runs meanwhile. "
                    "Use engine='native', or put before you get"
                ) from None
            raise

    def put_nowait(self, item: Any) -> None:
        """Add an item if there is room; `Full` if not."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take the oldest item if there is one; `Empty` if not."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all items, or none: `Full` if there is no room for all."""
        get(self._items().put_batch.remote(list(items)))

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take so many items, or none: `Empty` if there are fewer."""
        count = as_int(num_items)
        if count is None or count < 0:
            raise InputError(f"num_items={num_items!r}: want an integer of at least 0")
        return get(self._items().get_batch.remote(count))

    def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> Awaitable[None]:
        """As `put`, to be awaited."""
        timeout = as_timeout("put_async", timeout)
        return self._items().put.remote(item, timeout if block else 0)

    def get_async(self, block: bool = True, timeout: float | None = None) -> Awaitable[Any]:
        """As `get`, to be awaited."""
        timeout = as_timeout("get_async", timeout)
        return self._items().get.remote(timeout if block else 0)

    def qsize(self) -> int:
        """Return the number of items in it."""
        return get(self._items().size.remote())

    size = qsize

    def __len__(self) -> int:
        return self.qsize()

    def empty(self) -> bool:
        """Return whether it has no item."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Return whether it has no room."""
        return self.maxsize > 0 and self.qsize() >= self.maxsize

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue; what it holds is lost, and calls that wait fail with ActorDiedError.

        Args:
            force: end it at once; False: once the calls that were made before have got as far as they can.
            grace_period_s: seconds to wait for that at most.

        Raises:
            InputError: `grace_period_s` is negative.
        """
        grace = as_timeout("shutdown", grace_period_s)
        if self.actor is not None:
            if not force:
                wait([self.actor.size.remote()], timeout=grace)
            kill(self.actor)
            self.actor = None


def _alone() -> bool:
    return engine_name() == "serial"
