"""Values as they come, for engines: futures with time limits that are read as everywhere else, and a queue."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from .arguments import as_timeout
from .refs import ObjectRef


class ValueFuture(Future):
    """A future of an object's value. A negative time limit is one of 0, as for Python's own futures."""

    def result(self, timeout: float | None = None) -> Any:
        """Return the value, or raise what stands for it; TimeoutError after `timeout` seconds."""
        return super().result(self._left(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception that stands for the value, if one does; TimeoutError after `timeout` seconds."""
        return super().exception(self._left(timeout))

    def _left(self, timeout: float | None) -> float | None:
        """Return how many seconds to wait; None: without limit."""
        return as_timeout("a future", None if timeout is None else max(timeout, 0))


class ReadyQueue:
    """References in the order in which their values arrive, for engines that cannot wait for any of many.

    Args:
        when_ready: the engine's.
    """

    def __init__(self, when_ready: Callable[[ObjectRef, Callable[[], None]], None]) -> None:
        self._when_ready = when_ready
        self._ready: SimpleQueue[ObjectRef] = SimpleQueue()

    def add(self, ref: ObjectRef) -> None:
        """Add a reference; `pop` returns it once its value is there."""
        self._when_ready(ref, partial(self._ready.put, ref))

    def pop(self, timeout: float | None) -> ObjectRef | None:
        """Return the next reference that is ready; None if there is none within `timeout` seconds."""
        try:
            return self._ready.get(timeout=timeout)
        except Empty:
            return None
