"""Where simulators, each in a thread that waits for its answer, meet the one thread that takes turns."""

import secrets
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from .refusal import Refusal
from .sessions import Request, Sessions, SimulatorAnswer, SimulatorTurn

SESSIONS = 256
"""Most sessions at a time, by default."""
SESSION_SECONDS = 60.0
"""How long a simulator may compute between two requests, by default."""


class SimulatorHub:
    """`Sessions` for many threads. Nothing here waits without a limit."""

    def __init__(self, *, limit: int = SESSIONS, timeout: float = SESSION_SECONDS) -> None:
        self.limit = limit
        self._sessions = Sessions(limit=limit, timeout=timeout, make_name=lambda: secrets.token_hex(8))
        self._asking: dict[str, Future[SimulatorAnswer]] = {}
        self._changed = threading.Condition()
        self._closed: str | None = None
        self._expired = time.monotonic()
        self.refused = 0
        """Requests that could not be."""

    @property
    def sessions(self) -> int:
        """Sessions of now."""
        return len(self._sessions)

    @property
    def lost(self) -> int:
        """Episodes that were lost on the way."""
        return self._sessions.lost

    # Simulators' side -----------------------------------------------------------------------------------------------

    def start(self, *, explore: bool = False) -> str:
        """Begin a session; as `Sessions.start`."""
        with self._changed:
            self._check_open()
            return self._sessions.start(time.monotonic(), explore=explore)

    def ask(self, name: str, request: Request, seconds: float) -> SimulatorAnswer:
        """Put a request in line, and wait so long for its answer.

        Raises:
            Refusal: as `Sessions.ask`; or there is no answer yet: the request stays in line, and may be sent again.
        """
        with self._changed:
            self._check_open(name)
            found = self._sessions.ask(name, request, time.monotonic())
            if found is not None:
                return found
            waiting: Future[SimulatorAnswer] = Future()
            earlier = self._asking.pop(name, None)
            self._asking[name] = waiting
            self._changed.notify_all()
        if earlier is not None:
            earlier.set_exception(Refusal("ABORTED", "the same request was sent again, and waits in place of this one"))
        try:
            return waiting.result(seconds)
        except FutureTimeoutError:
            raise Refusal(
                "DEADLINE_EXCEEDED",
                f"no answer came within {seconds:g} s: it may be learning. Send the same step again to wait on",
            ) from None

    def refuse(self, name: str, refusal: Refusal) -> None:
        """Count a refused request; end its session if what it sent is at fault."""
        with self._changed:
            self.refused += 1
            fatal = refusal.code == "INVALID_ARGUMENT" and self._sessions.drop(
                name, f"it was refused: {refusal.message:.200}"
            )
            waiting = self._asking.pop(name, None) if fatal else None
        if waiting is not None:
            waiting.set_exception(refusal)

    def _check_open(self, name: str = "") -> None:
        if self._closed is not None:
            self._sessions.drop(name, self._closed)
            self._changed.notify_all()
            raise Refusal("ABORTED", self._closed)

    # The side that takes turns --------------------------------------------------------------------------------------

    def next(self, seconds: float) -> SimulatorTurn | None:
        """Take the request that has waited longest, one that comes within so many seconds at the latest; None if none
        does."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                now = time.monotonic()
                if now - self._expired > 1:
                    self._expired = now
                    self._sessions.expire(now)
                turn = self._sessions.next()
                if turn is not None:
                    told = self._asking.pop(turn.session, None) if turn.request.kind == "end" else None
                    break
                if now >= deadline or self._closed is not None:
                    return None
                self._changed.wait(deadline - now)
        if told is not None:
            told.set_result(SimulatorAnswer())
        return turn

    def answer(self, name: str, answer: SimulatorAnswer, note: Any = None) -> None:
        """Answer a turn that does not end its session; `note` comes back with its transition."""
        with self._changed:
            if not self._sessions.answer(name, answer, time.monotonic(), note):
                return
            waiting = self._asking.pop(name, None)
        if waiting is not None:
            waiting.set_result(answer)

    def fail(self, name: str, refusal: Refusal) -> None:
        """Tell a simulator whose turn was taken that there is no answer; its session ends."""
        with self._changed:
            self._sessions.drop(name, f"it could not be answered: {refusal.message:.200}")
            waiting = self._asking.pop(name, None)
        if waiting is not None:
            waiting.set_exception(refusal)

    def close(self, reason: str, seconds: float = 0.0) -> None:
        """Tell all simulators that nobody answers any more, and why: those that wait at once, the others when they ask,
        for which they have so many seconds."""
        with self._changed:
            self._closed = self._closed or reason
            asking, self._asking = self._asking, {}
            for name in asking:
                self._sessions.drop(name, reason)
            self._changed.notify_all()
        for waiting in asking.values():
            waiting.set_exception(Refusal("ABORTED", reason))
        with self._changed:
            self._changed.wait_for(lambda: not len(self._sessions), seconds)
