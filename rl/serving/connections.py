"""Who may be connected to the HTTP server, and how long for what.

uvicorn ends idle connections, but waits without end for a request that is half sent and for a client that does not
read, and accepts connections until no file descriptor is left. So each connection has a phase, and each phase its time:

    HEAD ──▶ BODY ──▶ ANSWER ──▶ HEAD …          WRITE: the client does not read what it was sent

When there are too many, the one that has kept us waiting longest gives way; one that is being answered never does. So
however many half-sent requests there are, a whole one finds room. Connections are events in and `drop`s out here; what
they are made of is in `http_protocol.py`.
"""

import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import psutil


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "head"  # the client's next request
    BODY = "body"  # the rest of the client's request
    ANSWER = "answer"  # the policy
    WRITE = "write"  # the client's reading


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds for each phase, and how many connections."""

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 10.0
    in_all: int = 512
    per_client: int = 256

    def seconds(self, phase: Phase) -> float:
        """Return how long a connection may stay in a phase."""
        known = {Phase.HEAD: self.head_seconds, Phase.BODY: self.body_seconds, Phase.WRITE: self.write_seconds}
        return known.get(phase, float("inf"))  # how long an answer takes is the served policy's to bound


class Connection(Protocol):
    """What there must be to a connection."""

    @property
    def mark(self) -> tuple[Phase, Any]:
        """The phase, and what tells this stay in it from an earlier one (such as the request)."""

    def drop(self, phase: Phase | None = None) -> None:
        """End it: since `phase` took too long, or to make room."""


@dataclass(slots=True)
class _Entry:
    client: str
    mark: tuple[Phase, Any]
    since: float


class Connections:
    """The connections of one server; to be used from one thread."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._entries: dict[Connection, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, connection: Connection, client: str) -> bool:
        """Take a new connection in, dropping another if there are too many; False if none gives way.

        Args:
            connection: what is new.
            client: the address that it comes from.
        """
        own = [other for other, entry in self._entries.items() if entry.client == client]
        if len(own) >= self._limits.per_client and not self._make_room(own):
            return False
        if len(self._entries) >= self._limits.in_all and not self._make_room(self._entries):
            return False
        self._entries[connection] = _Entry(client, connection.mark, self._clock())
        return True

    def forget(self, connection: Connection) -> None:
        """Note that a connection has ended; harmless for one that was not admitted."""
        self._entries.pop(connection, None)

    def sweep(self) -> None:
        """Drop the connections whose time is up. To be called several times a second."""
        now = self._clock()
        for connection, entry in list(self._entries.items()):
            self._refresh(connection, entry)
            if now - entry.since > self._limits.seconds(entry.mark[0]):
                connection.drop(entry.mark[0])

    def close(self) -> None:
        """Drop all that are not being answered."""
        for connection, entry in list(self._entries.items()):
            self._refresh(connection, entry)
            if entry.mark[0] is not Phase.ANSWER:
                connection.drop()

    def _refresh(self, connection: Connection, entry: _Entry) -> None:
        mark = connection.mark
        if mark != entry.mark:
            entry.mark, entry.since = mark, self._clock()

    def _make_room(self, crowd: Iterable[Connection]) -> bool:
        waiting = []
        for connection in crowd:
            entry = self._entries[connection]
            self._refresh(connection, entry)
            if entry.mark[0] is not Phase.ANSWER:
                waiting.append((entry.since, connection))
        if not waiting:
            return False
        _, oldest = min(waiting, key=lambda pair: pair[0])
        self.forget(oldest)
        oldest.drop()
        return True


def connections_possible(most: int = 512) -> int:
    """Return how many connections may be open at a time: half of the file descriptors that this process has left."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return most
    return max(8, min(most, (descriptors - psutil.Process().num_fds()) // 2))
