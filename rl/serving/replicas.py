"""Replica actors of whatever is served: started, asked in bounded time, and replaced when they are lost.

A replica is replaced when it dies, and when it does not answer in time: a process that is stopped or hangs says
nothing, so only a time limit finds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ...runtime import ActorHandle, ObjectRef, exceptions, get, is_initialized, kill

LOST = (exceptions.ActorError, exceptions.WorkerCrashedError, exceptions.GetTimeoutError)
"""What is raised when a replica is gone, or as good as gone."""
HEARTBEAT_SECONDS = 5.0
"""A replica that has nothing to do is asked so often whether it is there, so that health is true before a request."""
# Importing torch takes 2–3 s, on a busy machine several times that.
_START_SECONDS = 60.0


class Replicas:
    """`count` actors made by `start(index)`, whose `describe()` says that they are alive; any thread may use them.

    Attributes:
        actors: their handles; `actors[index]` may change when one is replaced.
        described: what each said of itself at the beginning.
    """

    def __init__(self, start: Callable[[int], ActorHandle], count: int, answer_timeout: float | None) -> None:
        """Start them, and wait until all are ready; raises whatever their constructors raise."""
        self._start, self._answer_timeout = start, answer_timeout
        self._lock = threading.Lock()
        self._restarts = 0
        self._last_failure: str | None = None
        self.actors = [start(index) for index in range(count)]
        self._alive = set(range(count))
        self.described: list[dict[str, Any]] = [get(actor.describe.remote()) for actor in self.actors]

    def ask(self, call: ObjectRef) -> Any:
        """Wait for what a replica answers; GetTimeoutError if it takes longer than `answer_timeout`."""
        try:
            return get(call, timeout=self._answer_timeout)
        except exceptions.GetTimeoutError:
            raise exceptions.GetTimeoutError(
                f"a replica did not answer within {self._answer_timeout:g} s (answer_timeout)"
            ) from None

    def replace(self, index: int, error: Exception, wanted: Callable[[], bool]) -> str | None:
        """Wait for the restarted actor, or start another in its place, while one is wanted; return why there is none.

        An actor that is alive, since it was slow or failed at something, is ended before.
        """
        with self._lock:
            self._restarts += 1
            self._alive.discard(index)
            self._last_failure = f"replica {index}: {error}".splitlines()[0]
        reason = f"replica {index} of the served policy is not wanted any more"
        for attempt in range(2):
            if not wanted():
                return reason
            try:
                if attempt:
                    self.actors[index] = self._start(index)
                elif not isinstance(error, exceptions.ActorError | exceptions.WorkerCrashedError):
                    kill(self.actors[index], no_restart=False)
                get(self.actors[index].describe.remote(), timeout=_START_SECONDS)
            except Exception as failure:  # of whatever kind: recorded as the reason why nobody answers
                reason = f"replica {index} of the served policy is gone and did not come back: {failure}"
                continue
            with self._lock:
                self._alive.add(index)
            return None
        return reason

    @property
    def alive(self) -> int:
        """How many answer."""
        with self._lock:
            return len(self._alive)

    def health(self) -> dict[str, Any]:
        """Return status, numbers of replicas and restarts, and why one was last replaced."""
        with self._lock:
            alive, wanted = len(self._alive), len(self.actors)
            return {
                "status": "down" if not alive else "ok" if alive == wanted else "degraded",
                "replicas": alive,
                "replicas_wanted": wanted,
                "restarts": self._restarts,
                "last_failure": self._last_failure,
            }

    def close(self) -> None:
        """End them; harmless a second time."""
        for actor in self.actors if is_initialized() else []:
            kill(actor)
        with self._lock:
            self.actors.clear()
            self._alive.clear()
