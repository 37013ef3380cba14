"""The queue between those who ask and the replicas that answer: it bounds what waits, and forms the batches.

Requests that wait together travel together. A replica that becomes free takes what is there, up to `max_batch_size`
rows, so batches grow by themselves exactly when the replicas are the bottleneck; `batch_wait` adds a pause in which a
batch may fill further, for policies whose forward pass is dear. Because an idle replica takes the next batch, work goes
to the least loaded one without anybody keeping count.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from ...runtime import ShoalError
from ..data.memories import Memory

#: A request is given up after this many replicas died, or failed, while working on it.
MOST_ATTEMPTS = 3


class ServerBusyError(ShoalError):
    """The served policy's queue is full; the request was not accepted. Ask again later, or serve more replicas."""


class ServerClosedError(ShoalError):
    """The served policy was closed, or has no replica left; the request was not answered."""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What a replica made of a request.

    Attributes:
        actions: [rows, …].
        version: of the weights that chose them.
        memory: what the policy remembers now, [rows, …]; None if it has no memory.
    """

    actions: np.ndarray
    version: int
    memory: Memory | None = None


@dataclass(slots=True, eq=False)
class Request:
    """Observations that one caller wants actions for.

    Attributes:
        observations: [rows, …] in the observation space's dtype.
        deterministic: the most likely action instead of a drawn one; a batch holds one kind.
        memory: what the policy remembers, [rows, …]; None if it has no memory.
        answer: gets a `Reply`, or the exception.
        attempts: how often it was given to a replica that failed.
        arrived: when it was accepted, in seconds of the queue's clock.
    """

    observations: np.ndarray
    deterministic: bool
    memory: Memory | None = None
    answer: "Future[Reply]" = field(default_factory=Future)
    attempts: int = 0
    arrived: float = 0.0

    @property
    def rows(self) -> int:
        """Number of observations."""
        return len(self.observations)


class RequestQueue:
    """Bounded first-in-first-out queue of requests, taken out in batches; any number of threads on both sides."""

    def __init__(
        self, *, max_rows: int, max_batch_size: int, batch_wait: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make an empty queue.

        Args:
            max_rows: most rows that wait at a time.
            max_batch_size: most rows in a batch; no request may have more.
            batch_wait: seconds that a batch which is not full waits for more, counted from its oldest request.
            clock: what `batch_wait` is measured with.
        """
        self._max_rows = max_rows
        self._max_batch_size = max_batch_size
        self._batch_wait = batch_wait
        self._clock = clock
        self._waiting: deque[Request] = deque()
        self._rows = 0
        self._closed: str | None = None
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # something to take, or closed
        self._room = threading.Condition(lock)

    @property
    def rows(self) -> int:
        """Rows that wait now."""
        return self._rows

    def put(self, request: Request, *, block: bool) -> None:
        """Accept a request.

        Args:
            request: with at most `max_batch_size` rows.
            block: wait while the queue is full.

        Raises:
            ServerBusyError: the queue is full and `block` is false.
            ServerClosedError: the queue is closed.
        """
        with self._changed:
            while self._closed is None and self._rows + request.rows > max(self._max_rows, request.rows):
                if not block:
                    raise ServerBusyError(
                        f"the served policy is busy: {self._rows} observations wait, the most that may is "
                        f"{self._max_rows}. Ask again later, or serve with more replicas"
                    )
                self._room.wait()
            if self._closed is not None:
                raise ServerClosedError(self._closed)
            request.arrived = self._clock()
            self._waiting.append(request)
            self._rows += request.rows
            self._changed.notify()

    def put_back(self, requests: list[Request]) -> None:
        """Return requests that a replica failed on to the front; each of them then travels alone."""
        with self._changed:
            for request in reversed(requests):
                self._waiting.appendleft(request)
                self._rows += request.rows
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether no more requests are accepted."""
        return self._closed is not None

    def take(self, timeout: float | None = None) -> list[Request] | None:
        """Wait for a batch and return it; None once the queue is closed and empty, [] after `timeout` seconds."""
        with self._changed:
            while True:
                while not self._waiting:
                    if self._closed is not None:
                        return None
                    if not self._changed.wait(timeout):
                        return []
                if not self._pause():
                    return self._take_now()

    def _pause(self) -> bool:
        """Wait a little if the batch may still grow; return whether it is worth looking again."""
        first = self._waiting[0]
        left = first.arrived + self._batch_wait - self._clock()
        if left <= 0 or first.attempts or self._closed is not None or self._rows >= self._max_batch_size:
            return False
        self._changed.wait(left)
        return True

    def _take_now(self) -> list[Request]:
        batch = [self._waiting.popleft()]
        rows = batch[0].rows
        while self._waiting and not batch[0].attempts:
            following = self._waiting[0]
            if following.attempts or following.deterministic != batch[0].deterministic:
                break
            if rows + following.rows > self._max_batch_size:
                break
            rows += following.rows
            batch.append(self._waiting.popleft())
        self._rows -= rows
        self._room.notify_all()
        if self._waiting:
            self._changed.notify()
        return batch

    def close(self, reason: str, *, drop: bool = False) -> None:
        """Accept no more requests; with `drop`, fail those that wait, too."""
        with self._changed:
            self._closed = self._closed or reason
            dropped = list(self._waiting) if drop else []
            if drop:
                self._waiting.clear()
                self._rows = 0
            self._changed.notify_all()
            self._room.notify_all()
        for request in dropped:
            request.answer.set_exception(ServerClosedError(reason))
