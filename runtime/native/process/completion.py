"""Values that are ready: unpickled for futures, or taken one after the other as they come."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from weakref import WeakSet

from ...core.futures import ValueFuture
from ...core.refs import ObjectRef
from ...exceptions import GetTimeoutError
from .calls import parent
from .links import Links
from .objects import Record
from .reactor import Waiter
from .values import Values
from .waits import Waits


class _Awaiting:
    """What is called once an object's value is there, for the sake of a task that runs here."""

    __slots__ = ("__weakref__", "_action", "object", "task")

    def __init__(self, task: bytes, object_id: bytes, action: Callable[[], None]) -> None:
        self.task, self.object, self._action = task, object_id, action

    def __call__(self) -> None:
        self._action()


class Arrivals:
    """Tells of values as they come, without blocking: what `await`, futures and `as_completed` are made of."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._awaiting: WeakSet[_Awaiting] = WeakSet()  # each lives as long as its object has no value

    def when_ready(self, ref: ObjectRef, action: Callable[[], None]) -> None:
        """Call `action` once a value is there: now, or in whichever thread reads, so it must be short and not raise."""
        task = parent.get()
        awaiting = None if task is None else _Awaiting(task, ref.id, action)
        with self._values.lock:
            there = self._values.await_value(ref, awaiting or action).value is not None
            if awaiting is not None and not there:
                self._awaiting.add(awaiting)
        if there:
            action()

    def awaited(self) -> dict[bytes, list[bytes]]:
        """Return which objects the tasks that run here await so; called under the lock."""
        found: dict[bytes, list[bytes]] = {}
        for awaiting in self._awaiting:
            found.setdefault(awaiting.task, []).append(awaiting.object)
        return found


class _Future(ValueFuture):
    """A future of a value: a thread that waits for it waits as in `get`, so that a task lends its CPU meanwhile."""

    def __init__(self, waits: Waits, ref: ObjectRef) -> None:
        super().__init__()
        self._waits = waits
        self.awaited: ObjectRef | None = ref

    def _left(self, timeout: float | None) -> float | None:
        """Wait for the value; return what is left of the time: it is still to be unpickled."""
        timeout = super()._left(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        ref = self.awaited
        if ref is not None and not self.done():
            self._waits.wait([ref], 1, timeout)
        return None if deadline is None else max(0.0, deadline - time.monotonic())


class Futures:
    """A thread that gives futures their values, begun by the first future.

    Unpickling may run any code of the user's, so it must not happen in the thread that reads, under the process's lock.
    """

    def __init__(self, arrivals: Arrivals, waits: Waits) -> None:
        self._arrivals, self._waits = arrivals, waits
        self._begin = threading.Lock()
        self._queue: SimpleQueue[tuple[_Future, ObjectRef] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def of(self, ref: ObjectRef) -> Future:
        """Return a future of a reference's value."""
        with self._begin:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shoal-futures", daemon=True)
                self._thread.start()
        future = _Future(self._waits, ref)
        future.set_running_or_notify_cancel()
        self._await(future, ref)
        return future

    def _await(self, future: _Future, ref: ObjectRef) -> None:
        self._arrivals.when_ready(ref, partial(self._queue.put, (future, ref)))

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            future, ref = entry
            self._fulfil(future, ref)
            del entry, future, ref  # nothing is kept alive while the thread waits

    def _fulfil(self, future: _Future, ref: ObjectRef) -> None:
        try:
            future.set_result(self._waits.get([ref], 0)[0])
        except BaseException as error:  # whatever the task raised belongs to the thread that asks the future
            if isinstance(error, GetTimeoutError) and error.__cause__ is None:
                self._await(future, ref)  # its block was lost; other futures must not wait until it is made again
                return
            future.set_exception(error)
        future.awaited = None

    def close(self) -> None:
        """End the thread, once all futures whose values are there have them."""
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if threading.current_thread() is not thread:
                thread.join(1)


class ReadyQueue:
    """References in the order in which their values arrive: waiting for the next one costs the same for any number."""

    def __init__(self, links: Links, values: Values, arrivals: Arrivals, waits: Waits) -> None:
        self._links, self._values, self._arrivals, self._waits = links, values, arrivals, waits
        self._ready: deque[ObjectRef] = deque()
        self._waiter: Waiter | None = None
        self._doubtful: list[Record] = []

    def add(self, ref: ObjectRef) -> None:
        """Add a reference; `pop` returns it once its value is there."""
        self._arrivals.when_ready(ref, partial(self._arrived, ref))
        record = self._values.objects.records.get(ref.id)
        if record is not None and record.asked and not record.absent and record.value is None:
            self._doubtful.append(record)

    def _arrived(self, ref: ObjectRef) -> None:
        self._ready.append(ref)
        if self._waiter is not None:
            self._waiter.finish()

    def pop(self, timeout: float | None) -> ObjectRef | None:
        """Return the next reference that is ready; None if there is none within `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            waiter = self._waiter = Waiter()
            if not self._ready:
                self._links.check()
                self._waits.block(waiter, deadline, self._doubtful)
                if not waiter.ready:
                    break
        self._waiter = None
        return self._ready.popleft() if self._ready else None
