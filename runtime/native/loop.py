"""The node's loop: one epoll set, and what to do when a descriptor can be read."""

from __future__ import annotations

import select
from collections.abc import Callable

from .connection import Connection


class Loop:
    """Descriptors and their readers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, reader: Callable[[], None]) -> None:
        """Call `reader()` when the descriptor can be read."""
        self._readers[fd] = reader
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def wait_for_room(self, connection: Connection, wanted: bool) -> None:
        """Have a connection's reader called also when its socket has room to write, or no longer."""
        if connection.fileno() in self._readers:
            self._epoll.modify(connection.fileno(), select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def poll(self, timeout: float | None) -> None:
        """Wait for something to read, at most `timeout` seconds, and have it read."""
        for fd, _ in self._epoll.poll(timeout):
            reader = self._readers.get(fd)
            if reader is not None:
                reader()
