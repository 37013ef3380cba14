"""A fixed set of actors that share a stream of work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..api.verbs import get, wait
from ..core.arguments import as_timeout
from ..core.engine import current_engine
from ..core.handles import ActorHandle
from ..core.refs import ObjectRef
from ..exceptions import GetTimeoutError, InputError, InputTypeError

# How often, in seconds, a pool looks whether actors that restart are back.
_LOOK_AGAIN = 0.02

Submit = Callable[[ActorHandle, Any], Any]


class ActorPool:
    """Gives each piece of work to an actor that is free, and the results back in order or as they come.

    An actor is free as soon as its call has ended, whether or not somebody has taken the result. One that has died
    takes no more work and leaves the pool; one that restarts takes some when it is back.

    Args:
        actors: their handles; a single one may stand for itself.

    Example:
        pool = ActorPool([Doubler.remote(), Doubler.remote()])
        list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3]))      # [2, 4, 6]
    """

    def __init__(self, actors: ActorHandle | Iterable[ActorHandle]) -> None:
        self._idle: deque[ActorHandle] = deque()
        self._busy: dict[ObjectRef, ActorHandle] = {}
        self._waiting: deque[tuple[Submit, Any]] = deque()
        self._dead = 0
        self._results: dict[ObjectRef, Any] = {}  # those that nobody has taken, in the order of submission
        for actor in [actors] if isinstance(actors, ActorHandle) else actors:
            self.push(actor)

    def submit(self, fn: Submit, value: Any) -> None:
        """Call ``fn(actor, value)`` with an actor that is free, now or as soon as there is one.

        Args:
            fn: makes the remote call and returns its reference.
            value: passed on to it.
        """
        self._waiting.append((fn, value))
        self._start()

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the results of ``fn(actor, value)`` for all values, in their order.

        The work begins at once. Results of earlier work that nobody has taken are dropped.
        """
        self._begin(fn, values)
        return self._take_all(self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the results of ``fn(actor, value)`` for all values, as they come; else as `map`."""
        self._begin(fn, values)
        return self._take_all(self.get_next_unordered)

    def _begin(self, function: Submit, values: Iterable[Any]) -> None:
        self._waiting.clear()
        self._results.clear()
        for value in values:
            self.submit(function, value)

    def _take_all(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def has_next(self) -> bool:
        """Return whether a result is still to be taken."""
        return bool(self._results or self._waiting)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Return the earliest submitted of the results that were not taken yet.

        Args:
            timeout: seconds to wait for it; None: without limit.
            ignore_if_timedout: after the timeout give that result up; None is returned.

        Raises:
            StopIteration: there is none left.
            GetTimeoutError: the time ran out; it can be asked for again.
            InputError: work waits for an actor, and the pool has none.
        """
        return self._get(lambda: next(iter(self._results), None), timeout, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Return whichever result comes first; arguments and errors as for `get_next`."""
        return self._get(
            lambda: next((ref for ref in self._results if ref not in self._busy), None), timeout, ignore_if_timedout
        )

    def _get(self, choose: Callable[[], ObjectRef | None], timeout: float | None, give_up: bool) -> Any:
        if not self.has_next():
            raise StopIteration("the pool has no more results")
        timeout = as_timeout("the pool's next result", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        self._collect(0)
        while (ref := choose()) is None or ref in self._busy:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                if not give_up:
                    raise GetTimeoutError(f"the pool's next result was not ready after {timeout} s")
                if self._results:
                    del self._results[next(iter(self._results))]
                return None
            self._collect(left)
        return get(self._results.pop(ref))

    def _collect(self, timeout: float | None) -> None:
        """Free the actors whose calls have ended, and give them work; wait for one at most `timeout` seconds."""
        if self._busy:
            refs = list(self._busy)
            if timeout != 0:
                wait(refs, timeout=timeout)
            for ref in wait(refs, num_returns=len(refs), timeout=0)[0]:
                self._idle.append(self._busy.pop(ref))
        self._start()
        if self._waiting and not self._busy and not self._results:
            if not self._idle:
                who = f"all {self._dead} of its actors are dead" if self._dead else "the pool has no actors"
                raise InputError(f"{who}: what was submitted would wait for ever. push() one")
            # All that it has restart.
            time.sleep(_LOOK_AGAIN if timeout is None else min(timeout, _LOOK_AGAIN))

    def _take_idle(self) -> ActorHandle | None:
        """Take an actor that can work; leave those that restart, and forget those that have died."""
        for _ in range(len(self._idle)):
            actor = self._idle.popleft()
            state = current_engine().actor_calls.state(actor._actor)
            if state == "alive":
                return actor
            if state == "restarting":
                self._idle.append(actor)
            else:
                self._dead += 1
        return None

    def _start(self) -> None:
        while self._waiting and (actor := self._take_idle()) is not None:
            function, value = self._waiting.popleft()
            try:
                result = function(actor, value)
                ref = result[0] if isinstance(result, list) else result
                if not isinstance(ref, ObjectRef):
                    raise TypeError(f"the pool's function must return what .remote() returned, not {result!r:.80}")
            except BaseException:
                self._idle.append(actor)
                raise
            self._busy[ref], self._results[ref] = actor, result

    def has_free(self) -> bool:
        """Return whether an actor is free."""
        self._collect(0)
        actor = self._take_idle()
        if actor is None:
            return False
        self._idle.appendleft(actor)
        return True

    def pop_idle(self) -> ActorHandle | None:
        """Take a free actor out of the pool; None if there is none."""
        return self._take_idle() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor to the pool.

        Raises:
            InputError: it is in the pool already.
        """
        if not isinstance(actor, ActorHandle):
            raise InputTypeError(f"a pool takes actors' handles, not a {type(actor).__name__} ({actor!r:.80})")
        if actor in self._idle or actor in self._busy.values():
            raise InputError(f"{actor!r} is in the pool already")
        self._idle.append(actor)
        self._start()
