"""Where the calls of a concurrent actor run: in pools of threads, or on event loops.

In both cases the main thread only reads and hands over what it has read, so that the process answers others whatever
its calls do. (Letting the event loop read would save the hand-over, 40 µs of a synchronous call, but nothing would be
read while a coroutine computes.) Calls begin in the order in which they arrived, within their concurrency group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...options import limits_of_groups
from ...signatures import is_async
from ..protocol import messages as m
from .event_loops import EventLoops
from .executor import Executor, Item
from .place import Place


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

    def finish(self, leaving: bool) -> None:
        """Wait for the threads, which cannot be interrupted."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools.values():
            pool.shutdown()


def place_for(cls: type, message: m.Construct, executor: Executor) -> Place | None:
    """Return where the calls of an actor are to run; None: one by one in the main thread."""
    groups = dict(message.concurrency_groups)
    limits = limits_of_groups(is_async(cls), message.max_concurrency, groups)
    if is_async(cls):
        return EventLoops(executor, cls, limits)
    return Threads(executor, cls, limits) if groups or (message.max_concurrency or 1) > 1 else None
