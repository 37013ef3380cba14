"""Values that are ready: unpickled for futures, or taken one after the other by whoever waits for any of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ...refs import ObjectRef
from .reactor import Waiter

if TYPE_CHECKING:
    from .client import Client


class Futures:
    """A thread that gives futures their values, begun by the first future.

    Unpickling may run any code of the user's, so it must not happen in the thread that reads, under the process's lock.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: SimpleQueue[tuple[Future, ObjectRef] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def of(self, ref: ObjectRef) -> Future:
        """Return a future of a reference's value."""
        with self._client.lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shoal-futures", daemon=True)
                self._thread.start()
        future: Future = Future()
        future.set_running_or_notify_cancel()
        self._client.when_ready(ref, partial(self._queue.put, (future, ref)))
        return future

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            future, ref = entry
            try:
                future.set_result(self._client.get([ref], None)[0])
            except BaseException as error:  # whatever the task raised belongs to whoever asks the future
                future.set_exception(error)
            del entry, future, ref  # nothing is kept alive while the thread waits

    def close(self) -> None:
        """End the thread, once all futures whose values are there have them."""
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if threading.current_thread() is not thread:
                thread.join(1)


class ReadyQueue:
    """References in the order in which their values arrive: waiting for the next one costs the same for any number."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ready: deque[ObjectRef] = deque()
        self._waiter: Waiter | None = None

    def add(self, ref: ObjectRef) -> None:
        """Have `pop` return the reference once its value is there."""
        self._client.when_ready(ref, partial(self._arrived, ref))

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
                self._client.check()
                self._client.block(waiter, deadline)
                if not waiter.ready:
                    break
        self._waiter = None
        return self._ready.popleft() if self._ready else None
