"""A served policy over HTTP.

    POST   /act             {"observation": …, "deterministic": true}  →  {"action": …, "version": …}
    GET    /health                                                     →  {"status": "ok", "version": …, …}
    DELETE /sessions/NAME                                              →  {}

Of several agents' policies the first and the last are also there under /policies/NAME, a policy's name or an agent's.
`observation` is one observation, or a batch of them, as nested lists. For a policy with memory a request also names its
episode, "session": "NAME", a name of the client's choice, and begins it with "episode_start": true. Errors are JSON
too, ``{"error": "…"}``:

    401 the token is missing               403 the Host is not this server's
    404 there is no such session or policy 408 the request did not arrive in time
    409 that session waits for an answer   413 the body is too long
    422 it is no observation               503 too many requests or sessions, or no replica is left
    504 the replicas did not answer in time

The server runs in a thread of the process that called `serve`, not in an actor of its own: requests then go straight
into the one queue in which they share batches with everybody else's, without another hop between processes.
"""

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...envs import bind, check_token, is_loopback, parse_address, shown_address
from ..lazy import load
from .connections import Limits
from .http_app import Answering, make_app
from .http_guard import Access, Told, plainly

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger("shoal")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class HttpServer:
    """An HTTP server in a thread of its own, listening from construction until `close`."""

    def __init__(
        self,
        make: "Callable[[Access], ASGIApp]",
        address: str,
        *,
        token: str | None = None,
        limits: Limits | None = None,
        told: Told = plainly,
    ) -> None:
        """Listen at "HOST:PORT".

        Args:
            make: returns the application that answers those who have access.
            address: where to listen. On this machine's own addresses only requests whose Host is one are answered.
            token: what requests must bring as ``Authorization: Bearer TOKEN``; None: nothing.
            limits: of connections and times; None: as many connections as there are file descriptors for.
            told: the form of errors that never come to the application: too slow, or too many.

        Raises:
            InputError: the address is malformed, not this machine's, or in use, or the token is none.
        """
        check_token(token)
        host, port = parse_address(address, "http")
        self._socket = bind(host, port)
        # Inherited by connections. asyncio sets it only on sockets that name their protocol, which create_server's do
        # not; without it, an answer's head and body wait for each other: 44 ms a request instead of 1.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not is_loopback(host):
            how = "without authentication" if token is None else "without encryption"
            logger.warning("serving at %s:%d %s, for whoever can reach that address", host, port, how)
        self.url = f"http://{shown_address(host, self._socket.getsockname()[1])}"
        access = Access(hosts=_LOCAL | {host.lower()} if is_loopback(host) else None, token=token)
        self._server = load("LimitedServer")(make(access), self._socket, limits, told)
        self._thread = threading.Thread(target=self._server.run, name="shoal-serve-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, let requests that are being answered finish, and end the thread."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def listen_for_observations(
    served: Answering,
    address: str,
    *,
    token: str | None = None,
    most_numbers: int = 1 << 20,
    policies: Mapping[str, Answering] = MappingProxyType({}),
    limits: Limits | None = None,
) -> HttpServer:
    """Listen for requests to a policy, or to the `policies` of several agents, by each name; `most_numbers` are those
    of a full batch of observations, the rest is as of `HttpServer`."""

    def make(access: Access) -> "ASGIApp":
        return make_app(served, access=access, most_numbers=most_numbers, policies=policies)

    return HttpServer(make, address, token=token, limits=limits)
