"""Where the calls of an async actor run: an event loop for each concurrency group, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ...core.reports.events import users_frame
from ..process.reactor import Reactor
from ..protocol import messages as m
from ..protocol.connection import Connection
from .executor import Executor, Item
from .place import DEFAULT_GROUP, Place

# How long, in seconds, tasks that the user's code has left on a loop may take to be cancelled.
_CANCEL_SECONDS = 1.0
# How long, in seconds, calls may go on after another one has asked for the actor's end; one of them may be a loop.
_LEAVE_SECONDS = 1.0


class _GroupLoop:
    """The event loop of a concurrency group; each call is a task of it, those of plain methods too."""

    def __init__(self, executor: Executor, name: str, limit: int) -> None:
        self._executor, self._limit = executor, limit
        self._arrived: deque[Item] = deque()
        self._waiting: deque[Item] = deque()
        self._calls: dict[bytes, tuple[Item, asyncio.Task]] = {}
        self._unflushed: set[Connection] = set()
        self._finishing = False
        self._loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name=f"{name}.loop", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._loop.is_closed():
            try:
                self._loop.run_forever()
                return
            except SystemExit as request:  # from a task that the user's code has made
                self._executor.leave("a task on its event loop", request)
            except KeyboardInterrupt:  # from such a task, too: it is raised where that is awaited
                continue

    def begin(self, item: Item) -> None:
        """Hand a call over to the loop; many at once wake it only once."""
        self._arrived.append(item)
        if len(self._arrived) == 1:
            is_here = threading.current_thread() is self.thread
            (self._loop.call_soon if is_here else self._loop.call_soon_threadsafe)(self._take)

    def read_for(self, reactor: Reactor) -> None:
        """Have the loop read what arrives for this process, while it is free."""

        def read() -> None:
            reactor.read_arrived()
            self._take()  # now: what was handed over would be taken one round of the loop later

        self._loop.call_soon_threadsafe(self._loop.add_reader, reactor.fileno(), read)
        reactor.attend(True)

    def _take(self) -> None:
        while self._arrived:
            item = self._arrived.popleft()
            if len(self._calls) < self._limit:
                self._start(item)
            else:
                self._waiting.append(item)

    def _start(self, item: Item) -> None:
        if not self._finishing:
            call = self._loop.create_task(self._run(item))
            self._calls[item.message.task] = (item, call)  # the loop itself holds its tasks only weakly

    async def _run(self, item: Item) -> None:
        try:
            await self._executor.run_async(item)
        except BaseException:  # the loop would only print it, and the caller wait for ever
            self._executor.crash()
        del self._calls[item.message.task]
        if self._waiting:
            self._start(self._waiting.popleft())

    def cancel(self, message: m.CancelTask) -> None:
        """Cancel a call on the loop, if it is one of its own."""
        self._loop.call_soon_threadsafe(self._cancel, message)

    def _cancel(self, message: m.CancelTask) -> None:
        found = self._calls.get(message.task)
        if found is not None:
            found[0].cancelled = message
            # After its first step, which may have been scheduled just now: before it nothing would send a reply.
            self._loop.call_soon(found[1].cancel)
            return
        for item in self._waiting:
            if item.message.task == message.task:
                self._waiting.remove(item)
                self._executor.refuse(item)
                return

    def flush_soon(self, peer: Connection) -> None:
        """Send the replies of one round of the loop together, that of a call alone at once; in its thread."""
        if len(self._calls) == 1:
            peer.flush()
            return
        if not self._unflushed:
            self._loop.call_soon(self._flush)
        self._unflushed.add(peer)

    def _flush(self) -> None:
        for peer in self._unflushed:
            peer.flush()
        self._unflushed.clear()

    def apply(self, make: Callable[[], Any]) -> Any:
        """Call something on the loop; return what it returns."""
        future: Future = Future()

        def call() -> None:
            try:
                future.set_result(make())
            except BaseException as error:  # raised again below, in the main thread
                future.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return future.result()

    def finish(self, leaving: bool) -> Callable[[], None]:
        """Begin to end the loop; return what waits until it has ended."""
        ended = asyncio.run_coroutine_threadsafe(self._finish(leaving), self._loop)

        def wait() -> None:
            ended.result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self.thread.join()

        return wait

    async def _finish(self, leaving: bool) -> None:
        self._finishing = True
        if self._calls:  # those of an actor whose last handle is gone are of callers that live no more, or end soon
            await asyncio.wait([call for _, call in self._calls.values()], timeout=_LEAVE_SECONDS if leaving else None)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=_CANCEL_SECONDS)
        self._flush()


class EventLoops(Place):
    """The loops of all groups: a coroutine that blocks its loop holds up its own group only."""

    def __init__(self, executor: Executor, cls: type, limits: Mapping[str, int], reactor: Reactor) -> None:
        super().__init__(executor, cls)
        name, self._reactor = cls.__name__, reactor
        self._loops = {
            group: _GroupLoop(executor, f"{name}.{group}" if group else name, limit) for group, limit in limits.items()
        }
        self._by_thread = {loop.thread: loop for loop in self._loops.values()}
        self._warned = False
        self.reads = len(limits) == 1  # else a coroutine that blocks its loop would hold up the other ones
        if self.reads:
            self._loops[DEFAULT_GROUP].read_for(reactor)

    def on_block(self) -> None:
        """Warn, once, that the calling code is about to block a loop."""
        if threading.current_thread() in self._by_thread and not self._warned:
            self._warned = True
            warnings.warn(
                "get() or wait() blocks the event loop of this async actor, and all calls of its concurrency group "
                "with it. Use `await ref` (or `await asyncio.gather(*refs)`) instead",
                RuntimeWarning,
                stacklevel=users_frame()[1] + 1,
            )

    def begin(self, item: Item) -> None:
        """Hand the call over to its group's loop."""
        self._loops[self.group_of(item.message)].begin(item)

    def cancel(self, message: m.CancelTask) -> None:
        """Cancel a call on whichever loop has it."""
        for loop in self._loops.values():
            loop.cancel(message)

    def flush(self, peer: Connection) -> None:
        """Send the replies of one round of a loop together."""
        loop = self._by_thread.get(threading.current_thread())
        if loop is None:
            peer.flush()
        else:
            loop.flush_soon(peer)

    def apply(self, make: Callable[[], Any]) -> Any:
        """Call it on the loop of the default group, so that it may create tasks there."""
        return self._loops[DEFAULT_GROUP].apply(make)

    def finish(self, leaving: bool) -> None:
        """Wait for the calls or cancel them, cancel what else is on the loops, and end these."""
        for wait in [loop.finish(leaving) for loop in self._loops.values()]:
            wait()
        self._reactor.attend(False)
