"""The gRPC server that simulators outside connect to. It decides nothing: `RequestReader` reads, the hub answers."""

import functools
import hmac
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
from google.protobuf.message import DecodeError

from ...runtime import InputError
from ..proto.shoal_simulators_pb2 import (
    DESCRIPTOR,
    ActReply,
    ActRequest,
    EndReply,
    EndRequest,
    LogReply,
    LogRequest,
    StartReply,
    StartRequest,
)
from ..spaces import codec, space_to_json
from .endpoint import Endpoint
from .hub import SimulatorHub
from .refusal import Refusal
from .requests import RequestReader
from .values import encode_numbers, longest_message

_REQUESTS = {"Start": StartRequest, "Act": ActRequest, "Log": LogRequest, "End": EndRequest}
OPTIONS = [
    ("grpc.so_reuseport", 0),  # else another training could listen at the same address, unnoticed
    ("grpc.server_handshake_timeout_ms", 10_000),
]
_LONGEST_WAIT = 300.0
"""Seconds that a call without a deadline of its own waits for its answer."""
_LONGEST_MESSAGE = 1000
_ROOM = 16_384
"""Bytes of a message beside observation and action."""
_SPARE_THREADS = 32
"""Calls that can be refused or heard while every session waits for its answer."""
_FLUSHING_SECONDS = 0.2

logger = logging.getLogger("shoal")


class SimulatorServer:
    """Listens from construction until `close`.

    Raises:
        InputError: the address is not this machine's, or in use.
    """

    def __init__(
        self,
        hub: SimulatorHub,
        endpoint: Endpoint,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        *,
        check: str = "error",
    ) -> None:
        """Serve simulators of two spaces; `check` as in `RequestReader`."""
        import grpc  # takes 30 ms, and most trainings need none

        self._hub, self._token = hub, f"Bearer {endpoint.token}".encode()
        self._actions, self._reader = codec(action_space), RequestReader(observation_space, action_space, check)
        self._spaces = [json.dumps(space_to_json(space)) for space in (observation_space, action_space)]
        self._statuses = grpc.StatusCode
        threads = hub.limit + _SPARE_THREADS
        longest = _ROOM + longest_message(codec(observation_space), self._actions) + 2 * sum(map(len, self._spaces))
        self._threads = ThreadPoolExecutor(threads, "shoal-simulators")
        self._server = grpc.server(
            self._threads,
            options=[*OPTIONS, ("grpc.max_receive_message_length", longest)],
            maximum_concurrent_rpcs=threads,
        )
        self._server.add_generic_rpc_handlers([_Handlers(self._handle, grpc.unary_unary_rpc_method_handler)])
        try:
            if endpoint.certificate is None:
                self._server.add_insecure_port(endpoint.address)
            else:
                self._server.add_secure_port(endpoint.address, endpoint.certificate.credentials())
        except RuntimeError as error:
            self._threads.shutdown()
            raise InputError(f"cannot listen for simulators at {endpoint.address}: {error}") from None
        self._server.start()

    def close(self, reason: str, seconds: float = 0.5) -> None:
        """Tell simulators in an episode, for so long at most, why nobody answers any more; then stop listening."""
        self._hub.close(reason, seconds)
        self._server.stop(_FLUSHING_SECONDS).wait()
        self._threads.shutdown()

    def _handle(self, method: str, data: bytes, context: Any) -> bytes:
        """Answer a call, or end it with a status and a message."""
        session = ""
        try:
            self._check_token(context)
            request = _parse(method, data)
            session = getattr(request, "session", "")
            left = context.time_remaining()
            reply = self._answer(request, _LONGEST_WAIT if left is None else min(left, _LONGEST_WAIT))
            return bytes(reply.SerializeToString())
        except Refusal as refusal:
            if refusal.code not in ("DEADLINE_EXCEEDED", "ABORTED"):
                self._hub.refuse(session, refusal)
            code, message = refusal.code, refusal.message
        except Exception as error:
            logger.exception("a simulator's call failed")
            code, message = "INTERNAL", f"{type(error).__name__}: {error}"
        context.abort(getattr(self._statuses, code), message[:_LONGEST_MESSAGE])
        raise AssertionError("abort raises")

    def _check_token(self, context: Any) -> None:
        given = next((value for key, value in context.invocation_metadata() if key == "authorization"), None)
        if given is None:
            raise Refusal("UNAUTHENTICATED", "no token: send it as the metadata 'authorization: Bearer TOKEN'")
        if not hmac.compare_digest(str(given).encode(), self._token):
            raise Refusal("UNAUTHENTICATED", "the token is not this server's: take the one that it told when it began")

    def _answer(self, request: Any, seconds: float) -> Any:
        if isinstance(request, StartRequest):
            self._reader.check_start(request)
            session = self._hub.start(explore=request.explore)
            return StartReply(session=session, observation_space=self._spaces[0], action_space=self._spaces[1])
        answer = self._hub.ask(request.session, self._reader.read(request), seconds)
        if isinstance(request, ActRequest):
            return ActReply(action=encode_numbers(self._actions.unpack(answer.action[0])), version=answer.version)
        return LogReply() if isinstance(request, LogRequest) else EndReply()


def _parse(method: str, data: bytes) -> Any:
    known = DESCRIPTOR.services_by_name["Simulators"]
    service, _, name = method.strip("/").partition("/")
    if service != known.full_name or name not in _REQUESTS:
        raise Refusal(
            "UNIMPLEMENTED",
            f"there is no method {method[:100]!r} here: this server has {', '.join(_REQUESTS)} of {known.full_name}; "
            "use its version's shoal_simulators.proto",
        )
    try:
        return _REQUESTS[name].FromString(data)  # type: ignore[attr-defined]
    except DecodeError:
        raise Refusal(
            "INVALID_ARGUMENT", f"{len(data)} bytes that are no {name}Request of shoal_simulators.proto"
        ) from None


class _Handlers:
    """What gRPC asks for the handler of a call: there is one for each method, also for those that do not exist."""

    def __init__(self, handle: Callable[[str, bytes, Any], bytes], wrap: Callable[[Any], Any]) -> None:
        self._handle, self._wrap = handle, wrap

    def service(self, details: Any) -> Any:
        """Return the handler of a call."""
        return self._wrap(functools.partial(self._handle, details.method))
