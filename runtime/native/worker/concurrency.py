"""Where the calls of a concurrent actor run: in pools of threads, or on an event loop.

In both cases the main thread only reads and hands over what it has read, so that the process answers others whatever
its calls do. (Letting the event loop read would save the hand-over, 40 µs of a synchronous call, but nobody would read
while a coroutine computes.) Calls begin in the order in which they arrived, within their concurrency group.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ...checkpoints import is_async
from ...failure import is_ours
from ...remote import method_table
from ..protocol import messages as m
from ..protocol.connection import Connection
from .executor import Executor, Item

# How many calls an async actor runs at the same time unless it says otherwise; Ray's number.
_ASYNC_CONCURRENCY = 1000
# How long, in seconds, tasks that the user's code has left on the loop may take to be cancelled.
_CANCEL_SECONDS = 1.0
_DEFAULT_GROUP = ""


def _level_of_user() -> int:
    """Return how many frames above the caller the user's code is."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_ours(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    return level


class Place(ABC):
    """Where an actor's calls run. Each concurrency group has a limit of calls that run at the same time.

    Args:
        executor: runs the calls.
        cls: the actor's class; its methods may name their groups.
    """

    def __init__(self, executor: Executor, cls: type) -> None:
        self._executor = executor
        table = method_table(cls)
        self._groups = {name: o.concurrency_group for name, o in table.items() if o.concurrency_group is not None}

    def group_of(self, message: m.Call) -> str:
        """Return the concurrency group that a call belongs to."""
        if message.extras is not None and message.extras.concurrency_group is not None:
            return message.extras.concurrency_group
        return self._groups.get(message.method, _DEFAULT_GROUP)

    @abstractmethod
    def begin(self, item: Item) -> None:
        """Run a call as soon as its group has room; from the thread that reads, never blocks."""

    @abstractmethod
    def cancel(self, message: m.CancelTask) -> None:
        """Cancel a call that has not begun, or that awaits something; under the lock, in the thread that reads."""

    @abstractmethod
    def apply(self, make: Callable[[], Any]) -> Any:
        """Call the constructor where it belongs; from the main thread."""

    def on_block(self) -> None:  # noqa: B027  # nothing to do in threads
        """Hear of a `get` or `wait` that is about to block its thread."""

    @abstractmethod
    def finish(self) -> None:
        """Let what runs finish, and begin nothing more; from the main thread."""


class Threads(Place):
    """A pool of threads for each concurrency group."""

    def __init__(self, executor: Executor, cls: type, limits: Mapping[str, int]) -> None:
        super().__init__(executor, cls)
        self._queued: dict[bytes, Item] = {}
        self._pools = {
            group: ThreadPoolExecutor(limit, f"{cls.__name__}.{group or 'call'}") for group, limit in limits.items()
        }

    def begin(self, item: Item) -> None:
        """Queue the call for the threads of its group."""
        self._queued[item.message.task] = item
        self._pools[self.group_of(item.message)].submit(self._run, item)

    def cancel(self, message: m.CancelTask) -> None:
        """Cancel a call that no thread has begun; a thread cannot be interrupted."""
        item = self._queued.pop(message.task, None)
        if item is not None:
            self._executor.refuse(item)

    def _run(self, item: Item) -> None:
        if self._queued.pop(item.message.task, None) is None:
            return  # it was cancelled
        try:
            self._executor.run(item)
        except BaseException:  # the pool would keep it to itself
            self._executor.crash()

    def apply(self, make: Callable[[], Any]) -> Any:
        """Call it here, in the main thread."""
        return make()

    def finish(self) -> None:
        """Wait for the threads."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools.values():
            pool.shutdown()


class _Group:
    """A concurrency group of an async actor."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: deque[Item] = deque()


class EventLoop(Place):
    """One event loop in a thread of its own; each call is a task of it, those of plain methods too."""

    def __init__(self, executor: Executor, cls: type, limits: Mapping[str, int]) -> None:
        super().__init__(executor, cls)
        self._limits = {group: _Group(limit) for group, limit in limits.items()}
        self._arrived: deque[Item] = deque()
        self._unflushed: set[Connection] = set()
        self._calls: dict[bytes, tuple[Item, asyncio.Task]] = {}
        self._finishing = self._warned = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=f"{cls.__name__}.loop", daemon=True)
        self._thread.start()
        executor.flush = self._flush_soon

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._loop.is_closed():
            try:
                self._loop.run_forever()
                return
            except SystemExit as request:  # from a task that the user's code has made
                self._executor.leave("a task on its event loop", request)
            except KeyboardInterrupt:  # from such a task, too: whoever awaits it is raised it
                continue

    def is_here(self) -> bool:
        """Return whether this is the loop's thread."""
        return threading.current_thread() is self._thread

    def on_block(self) -> None:
        """Warn, once, whoever is about to block the loop."""
        if self.is_here() and not self._warned:
            self._warned = True
            warnings.warn(
                "get() or wait() blocks the event loop of this async actor, and all its calls with it. "
                "Use `await ref` (or `await asyncio.gather(*refs)`) instead",
                RuntimeWarning,
                stacklevel=_level_of_user(),
            )

    # Calls ------------------------------------------------------------------------------------------------------

    def begin(self, item: Item) -> None:
        """Hand the call over to the loop; many at once wake it only once."""
        self._arrived.append(item)
        if len(self._arrived) == 1:
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        while self._arrived:
            item = self._arrived.popleft()
            group = self._limits[self.group_of(item.message)]
            if group.running < group.limit:
                self._start(item, group)
            else:
                group.waiting.append(item)

    def _start(self, item: Item, group: _Group) -> None:
        if not self._finishing:
            group.running += 1
            call = self._loop.create_task(self._run(item, group))
            self._calls[item.message.task] = (item, call)  # the loop itself holds its tasks only weakly

    async def _run(self, item: Item, group: _Group) -> None:
        try:
            await self._executor.run_async(item)
        except BaseException:  # the loop would only print it, and the caller wait for ever
            self._executor.crash()
        del self._calls[item.message.task]
        group.running -= 1
        if group.waiting:
            self._start(group.waiting.popleft(), group)

    def cancel(self, message: m.CancelTask) -> None:
        """Have the loop cancel the call."""
        self._loop.call_soon_threadsafe(self._cancel, message)

    def _cancel(self, message: m.CancelTask) -> None:
        found = self._calls.get(message.task)
        if found is not None:
            found[0].cancelled = message
            # After its first step, which may have been scheduled just now: before it nothing would send a reply.
            self._loop.call_soon(found[1].cancel)
            return
        for group in self._limits.values():
            for item in group.waiting:
                if item.message.task == message.task:
                    group.waiting.remove(item)
                    self._executor.refuse(item)
                    return

    def _flush_soon(self, peer: Connection) -> None:
        """Send the replies of one round of the loop together."""
        if not self.is_here():
            peer.flush()
            return
        if not self._unflushed:
            self._loop.call_soon(self._flush)
        self._unflushed.add(peer)

    def _flush(self) -> None:
        for peer in self._unflushed:
            peer.flush()
        self._unflushed.clear()

    # Beginning and end ------------------------------------------------------------------------------------------

    def apply(self, make: Callable[[], Any]) -> Any:
        """Call it on the loop, so that it may create tasks there."""
        future: Future = Future()

        def call() -> None:
            try:
                future.set_result(make())
            except BaseException as error:  # raised again below, in the main thread
                future.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return future.result()

    def finish(self) -> None:
        """Wait for the calls, cancel what else is on the loop, and end it."""
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _finish(self) -> None:
        self._finishing = True
        if self._calls:
            await asyncio.wait([call for _, call in self._calls.values()])
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=_CANCEL_SECONDS)
        self._flush()


def place_for(cls: type, message: m.Construct, executor: Executor) -> Place | None:
    """Return where the calls of an actor are to run; None: one by one in the main thread."""
    limits = dict(message.concurrency_groups)
    if is_async(cls):
        return EventLoop(executor, cls, {_DEFAULT_GROUP: message.max_concurrency or _ASYNC_CONCURRENCY, **limits})
    if limits or (message.max_concurrency or 1) > 1:
        return Threads(executor, cls, {_DEFAULT_GROUP: message.max_concurrency or 1, **limits})
    return None
