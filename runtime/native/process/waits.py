"""`get` and `wait`: threads of this process that wait for values."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ...core.current import AwaitsValues
from ...core.refs import ObjectRef, object_gone
from ...exceptions import GetTimeoutError
from ..protocol.messages import Value
from ..store.store import Store
from ..store.views import StaleBlockError
from .blocked_waits import BlockedWaits
from .fetching import Fetching
from .lending import Lending
from .links import Links
from .objects import Record
from .reactor import Waiter
from .recovery import Recovery
from .values import Values


class _Arrivals(Waiter):
    """A thread that waits for some of many values; one is told to it, whichever it is.

    Args:
        missing: what is awaited; what has come is taken out, so that a value which is made again counts once.
        count: how many values are enough.
        stop_at_failure: whether a failure is.
    """

    __slots__ = ("_missing", "_stop_at_failure")

    def __init__(self, missing: dict[bytes, Record], count: int, stop_at_failure: bool) -> None:
        super().__init__(count)
        self._missing, self._stop_at_failure = missing, stop_at_failure

    def arrived(self, object_id: bytes, value: Value) -> None:
        """Event: a value has come."""
        if self._missing.pop(object_id, None) is not None:
            if self._stop_at_failure and value.failed:
                self.finish()
            else:
                self.notify()


def _has_failed(record: Record) -> bool:
    return record.value is not None and record.value.failed


class Waits(AwaitsValues):
    """The waits of one process.

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
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                values = self._get(refs, timeout, deadline, copy)
                if len(values) == len(refs):  # else another thread has found one to be lost just after it came
                    return values
            except StaleBlockError as loss:
                with self._values.lock:
                    self._recovery.lost([ref.id for ref in refs], loss.span)
            except KeyboardInterrupt as interrupt:
                # Where it waits says nothing, in nine frames of ours.
                raise interrupt.with_traceback(None) from interrupt.__cause__

    def _get(self, refs: Sequence[ObjectRef], timeout: float | None, deadline: float | None, copy: bool) -> list[Any]:
        ids = [ref.id for ref in refs]
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        records = self._await(ids, 0, left, stop_at_failure=True)
        late = []
        for ref, record in zip(refs, records, strict=True):
            if record.value is None:
                late.append(ref)
            elif record.value.failed:
                self._store.load(self._values.objects.read_failure(record))
        if late:
            if deadline is None or time.monotonic() < deadline:
                return []
            raise GetTimeoutError(
                f"get: {len(late)} of {len(refs)} objects were not ready after {timeout} s, the first is {late[0]!r}"
            )
        self._values.objects.use(ids)
        if len(self._links.nodes) > 1:
            self._fetching.fetch_values(records)
        return [self._store.load(record.value, copy) for record in records if record.value is not None]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        deadline = None if timeout is None else time.monotonic() + timeout
        ready = self._first_ready(refs, num_returns)
        while len(ready) < num_returns:
            self._await([ref.id for ref in refs], len(refs) - num_returns, timeout, stop_at_failure=False)
            ready = self._first_ready(refs, num_returns)
            # Else another thread has found a value to be lost just after it came.
            if deadline is not None:
                timeout = max(0.0, deadline - time.monotonic())
                if timeout == 0:
                    break
        pending: list[ObjectRef] = []
        start = 0
        for index in ready:
            pending += refs[start:index]
            start = index + 1
        pending += refs[start:]
        return [refs[index] for index in ready], pending

    def _first_ready(self, refs: Sequence[ObjectRef], most: int) -> list[int]:
        """Return where the first references are whose values are there; looks no further."""
        records = self._values.objects.records
        found: list[int] = []
        for index, ref in enumerate(refs):
            record = records.get(ref.id)
            if record is None:
                raise object_gone(ref.id)
            if record.value is not None:
                found.append(index)
                if len(found) == most:
                    break
        return found

    def _await(self, ids: list[bytes], spare: int, timeout: float | None, stop_at_failure: bool) -> list[Record]:
        """Block until all but `spare` values are there, the time is over, or one is a failure if that stops it."""
        values, objects = self._values, self._values.objects
        with values.lock:
            records = objects.records_of(ids)
            missing = {
                object_id: record for object_id, record in zip(ids, records, strict=True) if record.value is None
            }
            if len(missing) <= spare or (stop_at_failure and any(map(_has_failed, records))):
                return records
            self._links.check()
            unasked = [object_id for object_id, record in missing.items() if not record.asked]
            waiter = _Arrivals(missing, len(missing) - spare, stop_at_failure)
            arrived = waiter.arrived
            objects.watchers.append(arrived)
            for object_id in unasked:
                values.ask_for(object_id, objects.records[object_id])
        try:
            if timeout == 0:
                self._links.reactor.wait(waiter, time.monotonic() + 0.0005)  # what has arrived already counts
            elif not waiter.ready:
                doubtful = [record for record in records if not record.absent and record.value is None]
                self._block_known(waiter, timeout, ids, len(ids) - spare, doubtful)
        finally:
            with values.lock:
                objects.watchers.remove(arrived)
        return records

    def _block_known(
        self, waiter: Waiter, timeout: float | None, ids: list[bytes], count: int, doubtful: list[Record]
    ) -> None:
        """Block, and let others see that."""
        now = time.monotonic()
        if self.on_wait is not None:
            self.on_wait()
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
