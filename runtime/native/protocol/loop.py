"""One epoll set: what to do when a descriptor can be read or written, and when a time has come."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import resource
import select
import socket
import time
import traceback
import weakref
from collections.abc import Callable

from ...core.telling import tell
from .connection import Connection
from .local_sockets import accept

# One poll may take this long, seconds; epoll itself refuses more than 24 days.
LONGEST_POLL = 86_400.0

# So long callers wait until it is looked again whether a descriptor is left for them, seconds.
_NO_ROOM_SECONDS = 0.5
_NO_ROOM = (
    "shoal: process {} can open no more files ({}; its limit is {}), so no other process can call it: they wait until "
    "some are closed. Raise the limit (ulimit -Hn), or keep fewer files open"
)
# Who calls and has not said by then who it is, is hung up on, seconds. An observer, which never says it, has its answer
# before that.
_STRANGER_SECONDS = 100.0

#: Called with the events of its descriptor.
Reader = Callable[[int], object]


def show(text: str = "") -> None:
    """Print a line on standard error, or the exception that is being handled."""
    said = text or traceback.format_exc().rstrip("\n")
    tell(f"{said}\n")


def _hang_up_on_stranger(connection: Connection | None) -> None:
    if connection is not None and connection.peer is None and not connection.closed:
        with contextlib.suppress(OSError):  # it has ended just now
            connection.sock.shutdown(socket.SHUT_RDWR)  # whoever reads it finds its end, and closes it


class Loop:
    """Descriptors and their readers; timers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Reader] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_ids = itertools.count()
        self._said_no_room = False

    def fileno(self) -> int:
        """Return a descriptor that can be read while one that is watched can be."""
        return self._epoll.fileno()

    def watch(self, fd: int, reader: Reader) -> None:
        """Call `reader(events)` when the descriptor can be read."""
        self._readers[fd] = reader
        self._epoll.register(fd, select.EPOLLIN)

    def newcomer(self, sock: socket.socket) -> Connection:
        """Return the connection with a caller, who is to say who it is: else it would take a descriptor for ever."""
        connection = Connection(sock, self.wait_for_room)
        known = weakref.ref(connection)
        self.call_later(_STRANGER_SECONDS, lambda: _hang_up_on_stranger(known()))
        return connection

    def let_in(self, listener: socket.socket, came: Callable[[Connection], object]) -> None:
        """Call `came(connection)` for each process of this user that calls there."""
        self.watch(listener.fileno(), lambda mask: self._accept(listener, came))

    def _accept(self, listener: socket.socket, came: Callable[[Connection], object]) -> None:
        try:
            sock = accept(listener)
        except OSError as error:  # who calls waits, which must not keep this process busy
            self.unwatch(listener.fileno())
            self.call_later(_NO_ROOM_SECONDS, lambda: self._let_in_again(listener, came))
            if not self._said_no_room:
                self._said_no_room = True
                show(_NO_ROOM.format(os.getpid(), error.strerror, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
            return
        if sock is not None:
            came(self.newcomer(sock))

    def _let_in_again(self, listener: socket.socket, came: Callable[[Connection], object]) -> None:
        if listener.fileno() >= 0:  # else it was closed meanwhile
            self.let_in(listener, came)

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
