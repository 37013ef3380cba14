"""A served policy over the protocol of simulators outside (`envs/proto`): what they trained with, they can go on with.

    Start, Act, Log, End ──▶ SimulatorHub ──turns──▶ Served.submit ──answers──▶ SimulatorHub

Rewards are heard and forgotten. Sessions are the protocol's; a policy with memory remembers for each of them, and sees
what a simulator chose itself, too.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any, Protocol

from gymnasium import Space

from ...envs import (
    Endpoint,
    Refusal,
    SimulatorAnswer,
    SimulatorHub,
    SimulatorServer,
    SimulatorTurn,
    codec,
    to_row,
)
from .queueing import ServerBusyError, ServerClosedError

_POLL_SECONDS = 0.5
_BUSY_SECONDS = 10.0
"""How long a request waits for room in the queue."""
_PAUSE_SECONDS = 0.005


class Submitting(Protocol):
    """What is asked of a served policy."""

    observation_space: Space
    action_space: Space

    @property
    def has_memory(self) -> bool:
        """Whether requests name a session."""

    def submit(
        self, observations: Any, *, deterministic: bool, session: str | None, episode_start: bool
    ) -> Future[Any]:
        """Ask for an action without waiting."""

    def end_session(self, session: str) -> None:
        """Forget a session."""


class SimulatorFront:
    """Serves simulators at an endpoint, from construction until `close`.

    Raises:
        InputError: the address is in use.
    """

    def __init__(self, served: Submitting, endpoint: Endpoint) -> None:
        self._served, self._endpoint, self._hub = served, endpoint, SimulatorHub()
        self._observations, self._actions = codec(served.observation_space), codec(served.action_space)
        self._server = SimulatorServer(self._hub, endpoint, served.observation_space, served.action_space, check="none")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shoal-serve-simulators", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Tell simulators that the policy is no longer served, and stop listening."""
        self._server.close("the policy is no longer served")
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            turn = self._hub.next(_POLL_SECONDS)
            if turn is not None:
                try:
                    self._serve(turn)
                except Exception as error:  # of this session alone
                    self._fail(turn, error)

    def _serve(self, turn: SimulatorTurn) -> None:
        remembers, request = self._served.has_memory, turn.request
        if request.kind == "end":
            if remembers:
                self._served.end_session(turn.session)
        elif request.kind == "log" and not remembers:
            self._hub.answer(turn.session, SimulatorAnswer())
        else:
            self._submit(turn).add_done_callback(lambda done: self._finish(turn, done))

    def _submit(self, turn: SimulatorTurn) -> Future[Any]:
        """Ask for the action; where too many ask already, again and again for a while."""
        observation, deadline = self._observations.unpack(turn.request.observation[0]), time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return self._served.submit(
                    observation,
                    deterministic=not turn.explore,
                    session=turn.session if self._served.has_memory else None,
                    episode_start=turn.request.step == 0,
                )
            except ServerBusyError:
                if time.monotonic() > deadline or self._closed.wait(_PAUSE_SECONDS):
                    raise

    def _finish(self, turn: SimulatorTurn, done: Future[Any]) -> None:
        error = done.exception()
        if error is not None:
            self._fail(turn, error)
        elif turn.request.kind == "log":
            self._hub.answer(turn.session, SimulatorAnswer())
        else:
            answer = done.result()
            self._hub.answer(turn.session, SimulatorAnswer(to_row(answer.action, self._actions), answer.version))

    def _fail(self, turn: SimulatorTurn, error: BaseException) -> None:
        codes = {ServerBusyError: "RESOURCE_EXHAUSTED", ServerClosedError: "ABORTED"}
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), "INTERNAL")
        self._hub.fail(turn.session, Refusal(code, str(error)))
