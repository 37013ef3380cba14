"""The client for simulators written in Python: what `shoal_simulators.proto` says, as methods."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gymnasium import Space

from ...runtime import InputError, as_number
from ..addresses import check_token, parse_address, shown_address
from ..proto.shoal_simulators_pb2 import (
    DESCRIPTOR,
    TERMINATED,
    TRUNCATED,
    ActReply,
    ActRequest,
    EndReply,
    EndRequest,
    LogReply,
    LogRequest,
    StartReply,
    StartRequest,
)
from ..spaces import codec, space_from_json, space_to_json
from .certificates import channel
from .endpoint import TOKEN_VARIABLE
from .requests import PROTOCOL
from .values import decode, encode

OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),  # a simulator may be there before the training
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_SERVICE = DESCRIPTOR.services_by_name["Simulators"].full_name


class SimulatorError(RuntimeError):
    """The server refused a request; the message is its own.

    Attributes:
        code: name of gRPC's status, such as "INVALID_ARGUMENT".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class EpisodeLostError(SimulatorError):
    """The server knows no such episode (any more), or the connection to it broke: begin another one."""


class ServerGoneError(SimulatorError):
    """Nobody answers (any more): the training has ended, or there is none at that address."""


# A connection breaks when a worker is killed, whose successor listens a moment later; an end is told by a server.
_ERRORS = {"NOT_FOUND": EpisodeLostError, "UNAVAILABLE": EpisodeLostError, "ABORTED": ServerGoneError}


class SimulatorClient:
    """A connection to a training, or a served policy, for any number of episodes, one after the other or at once.

        with SimulatorClient("127.0.0.1:50051") as client:
            episode = client.start()
            action = episode.act(observation)
            ...
            action = episode.act(observation, reward)
            episode.end(observation, reward, terminated=True)

    Safe to use from many threads, each with episodes of its own.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        ca: str | Path | None = None,
        observation_space: Space | None = None,
        action_space: Space | None = None,
        explore: bool = False,
        timeout: float = 300.0,
        connect_timeout: float = 30.0,
    ) -> None:
        """Connect at the first call.

        Args:
            address: "HOST:PORT", or "PORT" on this machine.
            token: what the server wants; None: what the environment variable SHOAL_SIMULATOR_TOKEN holds.
            ca: file of certificates (PEM) of who may have signed the server's, which is for `address`; None: what the
                environment variable SHOAL_SIMULATOR_TLS_CA names, else no TLS.
            observation_space: of the simulator; the server refuses one that is not its own. None: it is not asked.
            action_space: the same.
            explore: whether a served policy draws its actions; else it takes the best. A training draws always.
            timeout: seconds that a call waits for its answer; a training that learns does not answer meanwhile.
            connect_timeout: seconds in which there must be a server when an episode begins.

        Raises:
            InputError: the address, the token, the file or a time is none.
        """
        import grpc  # takes 30 ms, and most programs that import this package need none

        self._grpc = grpc
        host, port = parse_address(address)
        token = os.environ.get(TOKEN_VARIABLE) if token is None else token
        if token is None:
            raise InputError(f"no token: pass token=…, or set {TOKEN_VARIABLE}; the training tells it when it begins")
        check_token(token)
        for name, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            number = as_number(seconds)
            if number is None or not 0 < number < float("inf"):
                raise InputError(f"{name} is {seconds!r}, but must be a number of seconds above 0")
        self._timeout, self._connect_timeout = float(timeout), float(connect_timeout)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._start = StartRequest(
            protocol=PROTOCOL,
            observation_space="" if observation_space is None else json.dumps(space_to_json(observation_space)),
            action_space="" if action_space is None else json.dumps(space_to_json(action_space)),
            explore=explore,
        )
        self._channel = channel(shown_address(host, port), ca, OPTIONS)
        replies = {"Start": StartReply, "Act": ActReply, "Log": LogReply, "End": EndReply}
        self._calls = {
            name: self._channel.unary_unary(
                f"/{_SERVICE}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=reply.FromString,  # type: ignore[attr-defined]
            )
            for name, reply in replies.items()
        }

    def start(self) -> SimulatorEpisode:
        """Begin an episode.

        Raises:
            ServerGoneError: there is no server, or it has ended.
            SimulatorError: it has other spaces, another version, another token, or too many sessions.
        """
        reply = self._call_until_connected("Start", self._start)
        return SimulatorEpisode(self, reply.session, space_from_json(json.loads(reply.action_space)))

    def _call_until_connected(self, method: str, request: Any) -> Any:
        deadline = time.monotonic() + self._connect_timeout
        while True:
            try:
                return self.call(method, request, max(0.0, deadline - time.monotonic()), wait=True)
            except EpisodeLostError:  # it was accepted by a server that ended before it could answer
                continue
            except SimulatorError as error:
                if error.code != "DEADLINE_EXCEEDED":
                    raise
            message = f"no server answered within {self._connect_timeout:g} s: does the training run there"
            raise ServerGoneError("UNAVAILABLE", f"{message}, and do both use TLS, or none?")

    def call(self, method: str, request: Any, timeout: float | None = None, *, wait: bool = False) -> Any:
        """Send a message of the protocol, and return the reply; `wait` for a server that does not listen yet."""
        try:
            return self._calls[method](
                request,
                timeout=self._timeout if timeout is None else timeout,
                metadata=self._metadata,
                wait_for_ready=wait,
            )
        except self._grpc.RpcError as error:
            code, message = error.code().name, error.details()
        if code == "CANCELLED":  # what a server that is just closing says of a call which it does not take any more
            code, message = "ABORTED", "the server has ended"
        raise _ERRORS.get(code, SimulatorError)(code, message)

    def close(self) -> None:
        """Disconnect; episodes that have not ended are lost."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class SimulatorEpisode:
    """An episode of a simulator, as `SimulatorClient.start` begins it.

    Attributes:
        session: its name at the server.
        action_space: what actions are elements of.
        version: updates that the weights had seen which chose the last action.
    """

    def __init__(self, client: SimulatorClient, session: str, action_space: Space) -> None:
        self.session, self.action_space, self.version = session, action_space, 0
        self._client, self._actions, self._step = client, codec(action_space), 0

    def act(self, observation: Any, reward: float = 0.0) -> Any:
        """Return the action in an observation.

        Args:
            observation: nested as the space is, in dicts and tuples; arrays have its dtype, numbers and lists are cast.
            reward: what came of the action before.

        Raises:
            EpisodeLostError: the server was restarted, the connection broke, or it heard nothing for too long.
            ServerGoneError: the training has ended.
            SimulatorError: the observation or the reward cannot be; the episode is lost.
        """
        reply = self._call("Act", ActRequest, observation, reward)
        self.version = reply.version
        return decode(reply.action, self._actions, "action")

    def log(self, observation: Any, action: Any, reward: float = 0.0) -> None:
        """Tell of an action that the simulator chose itself; arguments and errors as of `act`."""
        self._call("Log", LogRequest, observation, reward, action=encode(action))

    def end(self, observation: Any, reward: float = 0.0, *, terminated: bool = False, truncated: bool = False) -> None:
        """End the episode with its last observation; errors as of `act`.

        Args:
            observation: what the last action led to.
            reward: what came of it.
            terminated: the task ended, and nothing follows that would have a value; counts where both are true.
            truncated: the episode was cut off: what would have followed counts.

        Raises:
            InputError: neither is true.
        """
        if not (terminated or truncated):
            raise InputError("an episode ends terminated=True (the task ended) or truncated=True (it was cut off)")
        self._call("End", EndRequest, observation, reward, outcome=TERMINATED if terminated else TRUNCATED)

    def _call(self, method: str, message: type, observation: Any, reward: float, **fields: Any) -> Any:
        request = message(
            session=self.session, step=self._step, reward=float(reward), observation=encode(observation), **fields
        )
        reply = self._client.call(method, request)
        self._step += 1
        return reply
