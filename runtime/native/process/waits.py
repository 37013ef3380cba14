"""`get` and `wait`: threads of this process that wait for values."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...exceptions import GetTimeoutError
from ...refs import ObjectRef
from ..store.fetching import Fetching
from ..store.store import Store
from ..store.views import StaleBlockError
from .blocked_waits import BlockedWaits
from .lending import Lending
from .links import Links
from .objects import Record
from .reactor import Waiter
from .recovery import Recovery
from .values import Values


class Waits:
    """The waits of one process.

    Args:
        links: its connections.
        values: what is awaited.
        lending: gives the CPU of a task that waits to others.
        store: where large values are read.
        fetching: brings those of other nodes here.
        recovery: is told of blocks that cannot be read.

    Attributes:
        running: threads that wait: name, since when (monotonic seconds), objects, how many of them are wanted.
        on_wait: called when a thread begins to wait.
        blocked: for a worker: is told of waits without a timeout.
    """

    def __init__(  # noqa: PLR0917  # put together in one place
        self,
        links: Links,
        values: Values,
        lending: Lending,
        store: Store,
        fetching: Fetching,
        recovery: Recovery,
    ) -> None:
        self._links, self._values, self._lending = links, values, lending
        self._store, self._fetching, self._recovery = store, fetching, recovery
        self.running: dict[Waiter, tuple[str, float, list[bytes], int]] = {}
        self.on_wait: Callable[[], object] | None = None
        self.blocked: BlockedWaits | None = None

    def get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool = False) -> list[Any]:
        """Return the values; see `shoal.runtime.get`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                values = self._get(refs, timeout, copy)
                if len(values) == len(refs):  # else another thread has just found one to be lost
                    return values
            except StaleBlockError as loss:
                with self._values.lock:
                    self._recovery.lost([ref.id for ref in refs], loss.span)
            if deadline is not None:
                timeout = max(0.0, deadline - time.monotonic())

    def _get(self, refs: Sequence[ObjectRef], timeout: float | None, copy: bool) -> list[Any]:
        records = self._await(refs, len(refs), timeout, stop_at_failure=True)
        late = []
        for ref, record in zip(refs, records, strict=True):
            if record.value is None:
                late.append(ref)
            elif record.value.failed:
                self._store.load(self._values.objects.read_failure(record))
        if late:
            raise GetTimeoutError(
                f"get: {len(late)} of {len(refs)} objects were not ready after {timeout} s, the first is {late[0]!r}"
            )
        self._values.objects.use(ref.id for ref in refs)
        self._fetching.fetch_values(records)
        return [self._store.load(record.value, copy) for record in records if record.value is not None]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Split into ready and not ready; see `shoal.runtime.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            records = self._await(refs, num_returns, timeout, stop_at_failure=False)
            ready: list[ObjectRef] = []
            pending: list[ObjectRef] = []
            for ref, record in zip(refs, records, strict=True):
                (ready if record.value is not None and len(ready) < num_returns else pending).append(ref)
            # Another thread may have found a value to be lost just after it came.
            if len(ready) == num_returns or (deadline is not None and time.monotonic() >= deadline):
                return ready, pending
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())

    def _await(
        self, refs: Sequence[ObjectRef], count: int, timeout: float | None, stop_at_failure: bool
    ) -> list[Record]:
        """Block until `count` of the values are there, the time is over, or one is a failure if that stops it."""
        waiter = Waiter(count)

        def arrived(record: Record) -> None:
            failed = stop_at_failure and record.value is not None and record.value.failed
            waiter.finish() if failed else waiter.notify()

        callbacks: list[tuple[Record, Callable[[], None]]] = []
        with self._values.lock:
            records = self._values.objects.records_of([ref.id for ref in refs])
            for ref, record in zip(refs, records, strict=True):
                if record.value is None:
                    callback: Callable[[], None] = partial(arrived, record)
                    if self._values.await_value(ref, callback).value is None:
                        callbacks.append((record, callback))
                        continue
                arrived(record)
            if not waiter.ready:
                self._links.check()
        if not waiter.ready and timeout != 0:
            doubtful = [record for record, _ in callbacks if record.asked and not record.absent]
            self._block_known(waiter, timeout, refs, count, doubtful)
        elif timeout == 0:
            self._links.reactor.wait(waiter, time.monotonic() + 0.0005)  # what has arrived already counts
        if not waiter.ready:
            with self._values.lock:
                for record, callback in callbacks:
                    if record.waiters and callback in record.waiters:
                        record.waiters.remove(callback)
        return records

    def _block_known(
        self, waiter: Waiter, timeout: float | None, refs: Sequence[ObjectRef], count: int, doubtful: list[Record]
    ) -> None:
        """Block, and let others see that."""
        now = time.monotonic()
        if self.on_wait is not None:
            self.on_wait()
        ids = [ref.id for ref in refs]
        self.running[waiter] = (threading.current_thread().name, now, ids, count)
        blocked = self.blocked if timeout is None else None
        if blocked is not None and not blocked.begin(waiter, ids, count):
            blocked = None
        try:
            self.block(waiter, None if timeout is None else now + timeout, doubtful)
        finally:
            del self.running[waiter]
            if blocked is not None:
                blocked.end()

    def block(self, waiter: Waiter, deadline: float | None, doubtful: list[Record] | None = None) -> None:
        """Wait until the waiter is ready; inside a task its CPU is free. Arguments as for `Lending.wait`."""
        if waiter.ready:
            return
        self._lending.wait(waiter, deadline, [] if doubtful is None else doubtful)
        if self._links.is_shut_down and self._links.broken is not None:
            raise self._links.gone()
