"""Where the calls of a concurrent actor run: in pools of threads, or on event loops (`event_loops.py`).

The main thread reads and hands over what it has read. Where there is one event loop it reads by itself, which saves a
synchronous call two changes of threads; while a coroutine computes, the reactor's own thread does. So the process
answers others whatever its calls do. Calls begin in the order in which they arrived, within their concurrency group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...core.methods import method_table
from ..protocol import messages as m
from ..protocol.connection import Connection
from .executor import Executor, Item

DEFAULT_GROUP = ""


class Place(ABC):
    """Where an actor's calls run. Each concurrency group has a limit of calls that run at the same time.

    Args:
        executor: runs the calls.
        cls: the actor's class; its methods may name their groups.

    Attributes:
        reads: whether it reads what arrives for the process, so that the main thread need not.
    """

    reads = False

    def __init__(self, executor: Executor, cls: type) -> None:
        self._executor = executor
        table = method_table(cls)
        self._groups = {name: o.concurrency_group for name, o in table.items() if o.concurrency_group is not None}

    def group_of(self, message: m.Call) -> str:
        """Return the concurrency group that a call belongs to."""
        if message.extras is not None and message.extras.concurrency_group is not None:
            return message.extras.concurrency_group
        return self._groups.get(message.method, DEFAULT_GROUP)

    @abstractmethod
    def begin(self, item: Item) -> None:
        """Run a call as soon as its group has room; from the thread that reads, never blocks."""

    @abstractmethod
    def cancel(self, message: m.CancelTask) -> None:
        """Cancel a call that has not begun, or that awaits something; under the lock, in the thread that reads."""

    @abstractmethod
    def apply(self, make: Callable[[], Any]) -> Any:
        """Call the constructor where it belongs; from the main thread."""

    def flush(self, peer: Connection) -> None:
        """Send what waits on a connection, as a reply does; in the thread of its call."""
        peer.flush()

    def on_block(self) -> None:  # noqa: B027  # nothing to do in threads
        """Event: a `get` or `wait` is about to block its thread."""

    @abstractmethod
    def finish(self, leaving: bool) -> None:
        """Wait for what runs, and begin nothing more; from the main thread.

        Args:
            leaving: a call has asked for the actor's end: coroutines are cancelled after a moment.
        """


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
