"""One epoll set: what to do when a descriptor can be read or written, and when a time has come."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable

from .connection import Connection

# One poll may take this long, seconds; epoll itself refuses more than 24 days.
LONGEST_POLL = 86_400.0

#: Called with the events of its descriptor.
Reader = Callable[[int], object]


class Loop:
    """Descriptors and their readers; timers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Reader] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_ids = itertools.count()

    def fileno(self) -> int:
        """Return a descriptor that can be read while one that is watched can be."""
        return self._epoll.fileno()

    def watch(self, fd: int, reader: Reader) -> None:
        """Call `reader(events)` when the descriptor can be read."""
        self._readers[fd] = reader
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def wait_for_room(self, connection: Connection | socket.socket, wanted: bool) -> None:
        """Watch a connection for room to write, too, or no longer."""
        # A connection that is being closed, or isn't watched yet, has nothing to be written.
        with contextlib.suppress(OSError, ValueError):
            self._epoll.modify(connection.fileno(), select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action()` once so many seconds have passed."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._timer_ids), action))

    def poll(self, timeout: float | None) -> None:
        """Wait for something to read, at most `timeout` seconds or until a timer is due, and have it done."""
        if self._timers:
            until = self._timers[0][0] - time.monotonic()
            timeout = until if timeout is None else min(timeout, until)
        for fd, mask in self._wait(None if timeout is None else min(max(timeout, 0.0), LONGEST_POLL)):
            reader = self._readers.get(fd)
            if reader is not None:  # else one before it has taken it off
                reader(mask)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Return the descriptors that can be read or written, with their events."""
        return self._epoll.poll(timeout)
