"""The sessions of simulators outside, as a state machine: requests in, turns out. No I/O, no thread, no clock.

    start ─▶ idle ──ask──▶ waiting ──next──▶ taken ──answer──▶ idle …          the simulator computes while idle
               └──expire, drop──▶ gone ◀──────next (end)

Requests of a session come one after the other, numbered from 0. A transition is whole once the request after its action
has been taken: that brings the reward and the observation which followed. Whoever takes turns (a rollout, or a served
policy) takes them in the order in which they were asked for, whatever session they are of.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .refusal import Refusal

_REMEMBERED = 1000
"""Sessions that are gone of which it is known why."""
_SPARED_SECONDS = 5.0
"""How long a session that has made a step may be silent before it gives way to another, where there is no room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a simulator says at one step of its episode."""

    kind: Literal["act", "log", "end"]
    step: int
    """Requests of the session before it."""
    reward: float
    """Of the action before; 0 at step 0."""
    observation: Any
    action: Any = None
    """With "log": what the simulator chose."""
    terminated: bool = False
    """With "end": the task ended; else the episode was cut off."""


@dataclass(frozen=True, slots=True)
class SimulatorAnswer:
    """What a simulator is told; nothing but that it was heard, where it did not ask for an action."""

    action: Any = None
    version: int = 0
    """Updates that the weights had seen which chose it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorTransition:
    """A step of an episode, and what came of it."""

    observation: Any
    action: Any
    """As it was answered or logged."""
    note: Any
    """What who answered wanted to keep with it."""
    logged: bool
    """Whether the simulator chose the action itself."""
    reward: float
    next_observation: Any
    terminated: bool
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorTurn:
    """A request that was taken."""

    session: str
    request: Request
    explore: bool
    """Whether the simulator wants actions to be drawn, where that is its choice."""
    transition: SimulatorTransition | None
    """What the request completes; None at step 0."""
    return_: float
    """Sum of rewards so far."""


@dataclass(slots=True)
class _Session:
    name: str
    explore: bool
    used: float
    step: int = 0
    """Requests that were asked."""
    kind: str = ""
    """Of the last one."""
    waiting: Request | None = None
    taken: Request | None = None
    answered: SimulatorAnswer | None = None
    """Of the last request, unless that waits or is taken."""
    before: tuple[Any, Any, Any, bool] | None = None
    """Observation, action, note of the last step, and whether it was logged."""
    return_: float = 0.0

    @property
    def idle(self) -> bool:
        return self.waiting is None and self.taken is None


class Sessions:
    """At most `limit` sessions; one that says nothing for `timeout` seconds while it is its turn is gone. `make_name`
    gives names that nobody guesses. Times are those of one clock, in seconds."""

    def __init__(self, *, limit: int, timeout: float, make_name: Callable[[], str]) -> None:
        self._limit, self._timeout, self._make_name = limit, timeout, make_name
        self._sessions: dict[str, _Session] = {}
        self._line: deque[str] = deque()
        self._gone: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self.lost = 0
        """Episodes that did not come to their end."""

    def __len__(self) -> int:
        return len(self._sessions)

    # What simulators do ---------------------------------------------------------------------------------------------

    def start(self, now: float, *, explore: bool = False) -> str:
        """Begin a session; returns its name.

        Raises:
            Refusal: there are too many, all of them in use.
        """
        if len(self._sessions) >= self._limit:
            self._make_room(now)
        name = self._make_name()
        self._sessions[name] = _Session(name, explore, now)
        return name

    def ask(self, name: str, request: Request, now: float) -> SimulatorAnswer | None:
        """Put a session's next request in line; returns its answer if it was answered already (it is sent again), None
        if that is to come.

        Raises:
            Refusal: no such session, or another step is its turn. Nothing changes.
        """
        session = self._sessions.get(name)
        if session is None:
            return self._ask_of_gone(name, request)
        session.used = now
        if request.step == session.step - 1 and request.kind == session.kind:
            current = session.waiting or session.taken
            return session.answered if current is None else None
        if request.step != session.step or not session.idle:
            turn = f"waits for the answer to step {session.step - 1}" if not session.idle else ""
            raise Refusal(
                "FAILED_PRECONDITION",
                f"session {name!r} {turn or f'is at step {session.step}'}, and was sent step {request.step}: number "
                "the requests of a session from 0, and send each when the one before is answered",
            )
        if request.step == 0 and request.reward:
            self.drop(name, f"it was refused: reward {request.reward:g} at step 0")
            raise Refusal(
                "INVALID_ARGUMENT",
                f"reward is {request.reward:g} at step 0, before any action: send the reward of an action with the "
                "observation that follows it",
            )
        session.waiting, session.answered, session.kind = request, None, request.kind
        session.step += 1
        self._line.append(name)
        return None

    def _ask_of_gone(self, name: str, request: Request) -> SimulatorAnswer:
        step, reason = self._gone.get(name, (-1, ""))
        if request.kind == "end" and request.step == step:
            return SimulatorAnswer()
        why = reason or "it never began, or the server was restarted since"
        raise Refusal("NOT_FOUND", f"there is no session {name[:80]!r}: {why}. Begin another one with Start")

    def _make_room(self, now: float) -> None:
        """Drop the session that is the least use: the one that has never said anything, or the longest nothing."""
        idle = [session for session in self._sessions.values() if session.idle]
        silent = [session for session in idle if session.step == 0 or session.used < now - _SPARED_SECONDS]
        if not silent:
            raise Refusal(
                "RESOURCE_EXHAUSTED",
                f"there are {self._limit} sessions, the most that may be, all of them in use. Try again later",
            )
        least = min(silent, key=lambda session: (session.step > 0, session.used))
        self.drop(least.name, "it gave way to others, since it said nothing")

    # What takes turns does ------------------------------------------------------------------------------------------

    def next(self) -> SimulatorTurn | None:
        """Take the request that has waited longest; None if none waits. It is then to be answered, unless it ends the
        session."""
        while self._line:
            session = self._sessions.get(self._line.popleft())
            if session is not None and session.waiting is not None:
                return self._take(session, session.waiting)
        return None

    def _take(self, session: _Session, request: Request) -> SimulatorTurn:
        session.return_ += request.reward
        transition = None
        if session.before is not None:
            observation, action, note, logged = session.before
            ended = request.kind == "end"
            transition = SimulatorTransition(
                observation=observation,
                action=action,
                note=note,
                logged=logged,
                reward=request.reward,
                next_observation=request.observation,
                terminated=ended and request.terminated,
                truncated=ended and not request.terminated,
            )
        session.waiting, session.before = None, None
        if request.kind == "end":
            self._forget(session, f"it ended at step {request.step}")
        else:
            session.taken = request
        return SimulatorTurn(
            session=session.name,
            request=request,
            explore=session.explore,
            transition=transition,
            return_=session.return_,
        )

    def answer(self, name: str, answer: SimulatorAnswer, now: float, note: Any = None) -> bool:
        """Answer a request that was taken; returns whether the session is still there. `note` comes back with the
        transition."""
        session = self._sessions.get(name)
        if session is None or session.taken is None:
            return False
        request = session.taken
        logged = request.kind == "log"
        session.before = request.observation, request.action if logged else answer.action, note, logged
        session.taken, session.answered, session.used = None, answer, now
        return True

    def drop(self, name: str, reason: str) -> bool:
        """End a session whose episode is lost; returns whether there was one. `reason` follows on "no session: "."""
        session = self._sessions.get(name)
        if session is None:
            return False
        self.lost += 1
        self._forget(session, reason)
        return True

    def expire(self, now: float) -> list[str]:
        """End the sessions that have said nothing for too long; returns their names."""
        silent = [name for name, found in self._sessions.items() if found.idle and found.used + self._timeout <= now]
        for name in silent:
            self.drop(name, f"no request came for {self._timeout:g} s")
        return silent

    def _forget(self, session: _Session, reason: str) -> None:
        del self._sessions[session.name]
        self._gone[session.name] = session.step - 1, reason
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
