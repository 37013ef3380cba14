"""What simulators send, read along the spaces; whatever cannot be is a `Refusal` that says what to send instead."""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from ..action_mask import MaskGuard, allowed_action
from ..observation_guard import ObservationGuard
from ..proto.shoal_simulators_pb2 import (
    TERMINATED,
    TRUNCATED,
    ActRequest,
    EndRequest,
    LogRequest,
    StartRequest,
    Value,
)
from ..spaces import codec, describe
from .refusal import Refusal
from .sessions import Request
from .space_difference import space_difference
from .values import decode, to_row

PROTOCOL = 1
_LARGEST_REWARD = float(np.finfo(np.float32).max)


class RequestReader:
    """Reads requests between two spaces. `check` as in `EnvGroup`: whether what lies outside of the bounds of a Box is
    refused ("error"), or said once ("warn"); with "none" it is taken."""

    def __init__(self, observation_space: gymnasium.Space, action_space: gymnasium.Space, check: str) -> None:
        self._observation_space, self._action_space = observation_space, action_space
        self._observations, self._actions = codec(observation_space), codec(action_space)
        guard = ObservationGuard(self._observations, 1, check)
        self._problem: Callable[[Any], str | None] = lambda element: guard.refusal(element, "a simulator")
        if check == "none":
            self._problem = functools.partial(self._observations.problem, bounds=False)
        self._masks = MaskGuard(self._observations, self._actions)

    def check_start(self, request: StartRequest) -> None:
        """Refuse another protocol, and a simulator of other spaces."""
        if request.protocol != PROTOCOL:
            raise Refusal(
                "FAILED_PRECONDITION",
                f"the simulator speaks protocol {request.protocol}, and this server {PROTOCOL}: use the "
                "shoal_simulators.proto, or the client, of this server's version of Shoal",
            )
        for text, space, role in (
            (request.observation_space, self._observation_space, "observation"),
            (request.action_space, self._action_space, "action"),
        ):
            wrong = space_difference(text, space, role) if text else None  # type: ignore[arg-type]
            if wrong is not None:
                raise Refusal("FAILED_PRECONDITION", wrong)

    def read(self, request: ActRequest | LogRequest | EndRequest) -> Request:
        """Return a request with its observation, and the action that it tells of, as rows [1, …] of their spaces."""
        if isinstance(request, ActRequest):
            return self._read_act(request)
        return self._read_log(request) if isinstance(request, LogRequest) else self._read_end(request)

    def _read_act(self, request: ActRequest) -> Request:
        observation = self._observation(request.observation)
        self._check_mask(observation)
        return Request(kind="act", step=request.step, reward=_reward(request.reward), observation=observation)

    def _read_log(self, request: LogRequest) -> Request:
        observation = self._observation(request.observation)
        self._check_mask(observation)
        action = self._action(request.action, observation)
        reward = _reward(request.reward)
        return Request(kind="log", step=request.step, reward=reward, observation=observation, action=action)

    def _read_end(self, request: EndRequest) -> Request:
        if request.outcome not in (TERMINATED, TRUNCATED):
            raise Refusal(
                "INVALID_ARGUMENT",
                f"outcome is {request.outcome}: want TERMINATED ({TERMINATED}), the task ended, or TRUNCATED "
                f"({TRUNCATED}), the episode was cut off",
            )
        return Request(
            kind="end",
            step=request.step,
            reward=_reward(request.reward),
            observation=self._observation(request.observation),
            terminated=request.outcome == TERMINATED,
        )

    def _observation(self, value: Value) -> np.ndarray:
        try:
            element = decode(value, self._observations)
        except ValueError as error:
            raise Refusal("INVALID_ARGUMENT", str(error)) from None
        wrong = self._problem(element)
        if wrong is not None:
            raise Refusal("INVALID_ARGUMENT", f"got {wrong}")
        return to_row(element, self._observations)

    def _check_mask(self, observation: np.ndarray) -> None:
        try:
            self._masks.check(observation)
        except ValueError as error:
            raise Refusal("INVALID_ARGUMENT", f"{error}: end the episode there") from None

    def _action(self, value: Value, observation: np.ndarray) -> np.ndarray:
        try:
            element = decode(value, self._actions, "action")
        except ValueError as error:
            raise Refusal("INVALID_ARGUMENT", str(error)) from None
        if not self._action_space.contains(element):
            raise Refusal(
                "INVALID_ARGUMENT", f"action {_short(element)} lies outside of {describe(self._action_space)}"
            )
        allowed = allowed_action(self._action_space, element, self._observations.unpack(observation[0]))
        if not np.array_equal(np.asarray(allowed, object), np.asarray(element, object)):
            raise Refusal("INVALID_ARGUMENT", f"action {_short(element)} is one that the observation's mask forbids")
        return to_row(element, self._actions)


def _reward(reward: float) -> float:
    if not abs(reward) <= _LARGEST_REWARD:
        raise Refusal("INVALID_ARGUMENT", f"reward is {reward:g}; want a finite number (in float32)")
    return reward


def _short(element: Any) -> str:
    return f"{element!r:.80}"
