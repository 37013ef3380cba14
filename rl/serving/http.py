"""A served policy over HTTP.

    POST /act     {"observation": …, "deterministic": true}  →  {"action": …, "version": …}
    GET  /health                                             →  {"status": "ok", "version": …, "replicas": …, …}

`observation` is one observation, or a batch of them, as nested lists. Errors are JSON too, ``{"error": "…"}``: 422 for
what cannot be an observation, 503 when the queue is full (ask again) or no replica is left, 413 for a body too long.

The server runs in a thread of the process that called `serve`, not in an actor of its own: requests then go straight
into the one queue in which they share batches with everybody else's, without another hop between processes.
"""

import asyncio
import ipaddress
import logging
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ...runtime import InputError, nearest
from .queueing import ServerBusyError, ServerClosedError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger("shoal")
_LONGEST_BODY = 32 * 1024 * 1024
_FIELDS = ("observation", "deterministic")


class Answering(Protocol):
    """What the server needs of a served policy."""

    def submit(self, observations: Any, *, deterministic: bool = True) -> "Future[Any]":
        """Ask without waiting."""

    def health(self) -> dict[str, Any]:
        """Return the state of the server."""


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of "HOST:PORT", "[IPV6]:PORT" or "PORT" (which means this machine alone).

    Raises:
        InputError: it is none of them.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise InputError(f"http={address!r}: want HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:8000")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HttpServer:
    """An HTTP server in a thread of its own, listening from construction until `close`."""

    def __init__(self, served: Answering, address: str) -> None:
        """Listen at "HOST:PORT".

        Raises:
            InputError: the address is malformed, not this machine's, or in use.
        """
        import uvicorn

        host, port = parse_address(address)
        self._socket = _bind(host, port)
        if not is_loopback(host):
            logger.warning("serving at %s:%d without authentication, for whoever can reach that address", host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(make_app(served), log_config=None, access_log=False, lifespan="off", loop="asyncio")
        config.timeout_graceful_shutdown = 5
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="shoal-serve-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, let requests that are being answered finish, and end the thread."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # Listening already: who connects before the thread has started waits, and is not turned away.
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = str(error.strerror or error).split(" (while", 1)[0]
        raise InputError(
            f"cannot listen at {host}:{port}: {reason}. Choose another address (port 0: any free port)"
        ) from None
    # Inherited by connections. asyncio sets it only on sockets that name their protocol, which create_server's do not;
    # without it, an answer's head and body wait for each other: 44 ms a request instead of 1.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def make_app(served: Answering) -> "Starlette":
    """Return the ASGI application that answers for a served policy."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import Response
    from starlette.routing import Route

    def reply(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
        return Response(msgspec.json.encode(value), status, headers, media_type="application/json")

    async def act(request: "Request") -> "Response":
        try:
            observation, deterministic = _parse(await _body(request))
            answer = await asyncio.wrap_future(served.submit(observation, deterministic=deterministic))
        except ServerBusyError as error:
            return reply(503, {"error": str(error)}, {"Retry-After": "1"})
        except ServerClosedError as error:
            return reply(503, {"error": str(error)})
        except _TooLongError as error:
            return reply(413, {"error": str(error)})
        except ValueError as error:
            return reply(422, {"error": str(error)})
        return reply(200, {"action": answer.action.tolist(), "version": answer.version})

    async def health(_: "Request") -> "Response":
        state = served.health()
        return reply(503 if state["status"] == "down" else 200, state)

    async def refused(_: "Request", error: Exception) -> "Response":
        assert isinstance(error, HTTPException)
        known = "there are POST /act and GET /health"
        return reply(error.status_code, {"error": f"{error.detail}: {known}"}, dict(error.headers or {}))

    async def failed(_: "Request", error: Exception) -> "Response":
        return reply(500, {"error": f"{type(error).__name__}: {error}"})

    routes = [Route("/act", act, methods=["POST"]), Route("/health", health, methods=["GET"])]
    return Starlette(routes=routes, exception_handlers={HTTPException: refused, Exception: failed})


class _TooLongError(Exception):
    """The body is longer than any observation should be."""


async def _body(request: "Request") -> bytes:
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > _LONGEST_BODY:
            raise _TooLongError(f"body is longer than {_LONGEST_BODY} bytes. Send fewer observations in one request")
        parts.append(part)
    return b"".join(parts)


def _parse(body: bytes) -> tuple[Any, bool]:
    """Return observation and deterministic of a request's body; ValueError says what is wrong with it."""
    wanted = 'want {"observation": …}'
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"body is no JSON: {error}; {wanted}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"body is a JSON {type(fields).__name__}, not an object; {wanted}")
    for name in fields:
        if name not in _FIELDS:
            raise ValueError(f"body has an unknown field {name!r}. {nearest(name, _FIELDS)}")
    if "observation" not in fields:
        raise ValueError(f"body has no field 'observation'; {wanted}")
    deterministic = fields.get("deterministic", True)
    if not isinstance(deterministic, bool):
        raise ValueError(f"deterministic is {deterministic!r}; want true or false")
    return fields["observation"], deterministic
