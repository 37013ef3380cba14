"""References in the order in which their values arrive, for engines that have no better way to wait for any of many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from .refs import ObjectRef


class ReadyQueue:
    """See `shoal.runtime.engine.ReadyQueue`.

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
