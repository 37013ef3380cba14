"""Sessions: what a served policy with memory remembers of each client's episode, between its requests.

    take(session)  → memory before the request, and nobody else's turn     keep(session, memory after it)
                                                                           drop(session): as if it had not been asked

The memory is kept here, beside the queue, and travels with the request. So each replica can answer each of them, and
one that dies takes nothing along.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...runtime import ShoalError
from ..data.memories import Memory
from .queueing import ServerBusyError

LONGEST_NAME = 200


class UnknownSessionError(ShoalError):
    """There is no session of this name: it never began, or has expired. Begin it with `episode_start`."""


class SessionInUseError(ShoalError):
    """A request of this session is being answered: the next one depends on what it remembers then."""


@dataclass(slots=True)
class _Session:
    memory: Memory | None
    """[rows, …]; None until its first request is answered."""
    used: float
    taken: bool


class Sessions:
    """Memories by name of session, `limit` of them at most; one that no request comes for in `timeout` seconds is
    forgotten. `initial` is the memory [1, …] of an episode that begins. Safe to use from many threads."""

    def __init__(
        self, initial: Memory | None, *, limit: int, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._initial, self._limit, self._timeout, self._clock = initial, limit, timeout, clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # the one that was used longest ago comes first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._sessions)

    def initial_memory(self, rows: int) -> Memory:
        """The memory of `rows` episodes that begin."""
        assert self._initial is not None
        return {name: np.repeat(leaf, rows, axis=0) for name, leaf in self._initial.items()}

    def take(self, name: str | None, rows: int, *, episode_start: bool) -> Memory:
        """The memory [rows, …] of a session; it is the caller's until `keep` or `drop`.

        Raises:
            ValueError: no name, or another number of observations than before.
            UnknownSessionError, SessionInUseError: as they say.
            ServerBusyError: there is no room for another session.
        """
        if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME:
            raise ValueError(
                f"session is {name!r:.80}: the policy remembers earlier steps, so each request names the episode that "
                f"it belongs to, by a text of 1 to {LONGEST_NAME} characters, and begins it with episode_start"
            )
        with self._lock:
            self._expire()
            found = self._sessions.get(name)
            if found is not None and found.taken:
                raise SessionInUseError(f"session {name!r} waits for an answer: send one request after the other")
            if found is None:
                found = self._begin(name, episode_start)
            memory = self.initial_memory(rows) if episode_start else found.memory
            assert memory is not None  # it is not taken, so its first request was answered
            kept = len(next(iter(memory.values())))
            if kept != rows:
                raise ValueError(f"session {name!r} has {kept} observations in each request, not {rows}")
            found.taken = True
            return memory

    def keep(self, name: str, memory: Memory) -> None:
        """Give a session back with the memory after its request."""
        with self._lock:
            found = self._sessions.get(name)
            if found is not None:
                found.memory, found.used, found.taken = memory, self._clock(), False
                self._sessions.move_to_end(name)

    def drop(self, name: str) -> None:
        """Give a session back as it was taken: its request was not answered."""
        with self._lock:
            found = self._sessions.get(name)
            if found is not None and found.memory is None:
                del self._sessions[name]
            elif found is not None:
                found.taken = False

    def end(self, name: str) -> None:
        """Forget a session; harmless if there is none."""
        with self._lock:
            self._sessions.pop(name, None)

    def _begin(self, name: str, episode_start: bool) -> _Session:
        if not episode_start:
            raise UnknownSessionError(
                f"there is no session {name!r}: it never began, or no request came for {self._timeout:g} s. Begin it "
                "with episode_start"
            )
        if len(self._sessions) >= self._limit:
            raise ServerBusyError(
                f"there are {self._limit} sessions, the most that may be (max_sessions); they are forgotten after "
                f"{self._timeout:g} s without a request, or when they are ended. Ask again later"
            )
        self._sessions[name] = begun = _Session(None, self._clock(), False)
        return begun

    def _expire(self) -> None:
        limit = self._clock() - self._timeout
        while self._sessions:
            name, oldest = next(iter(self._sessions.items()))
            if oldest.used > limit:
                return
            if oldest.taken:  # it is being answered, and becomes the newest then
                oldest.used = self._clock()
                self._sessions.move_to_end(name)
            else:
                del self._sessions[name]
