"""A served policy over HTTP.

    POST /act     {"observation": …, "deterministic": true}  →  {"action": …, "version": …}
    GET  /health                                             →  {"status": "ok", "version": …, "replicas": …, …}

`observation` is one observation, or a batch of them, as nested lists. Errors are JSON too, ``{"error": "…"}``:

    401 the token is missing    403 the Host is not this server's    408 the request did not arrive in time
    413 the body is too long    422 it is no observation             503 the queue is full, or no replica is left
    504 the replicas did not answer in time

The server runs in a thread of the process that called `serve`, not in an actor of its own: requests then go straight
into the one queue in which they share batches with everybody else's, without another hop between processes.
"""

import ipaddress
import logging
import re
import socket
import threading

from ...runtime import InputError
from ..lazy import load
from .connections import Limits
from .http_app import Access, Answering, make_app

logger = logging.getLogger("shoal")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


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


def check_token(token: str | None) -> None:
    """Refuse what cannot be sent in a header.

    Raises:
        InputError: the token is empty, or holds other characters than visible ASCII ones; it is not shown.
    """
    if token is not None and not re.fullmatch("[!-~]+", token):
        raise InputError(f"the token has {len(token)} characters; want at least one, all of them visible ASCII")


class HttpServer:
    """An HTTP server in a thread of its own, listening from construction until `close`."""

    def __init__(
        self,
        served: Answering,
        address: str,
        *,
        token: str | None = None,
        most_numbers: int = 1 << 20,
        limits: Limits | None = None,
    ) -> None:
        """Listen at "HOST:PORT".

        Args:
            served: who answers.
            address: where to listen. On this machine's own addresses only requests whose Host is one are answered.
            token: what requests must bring as ``Authorization: Bearer TOKEN``; None: nothing.
            most_numbers: how many a full batch of observations holds.
            limits: of connections and times; None: as many connections as there are file descriptors for.

        Raises:
            InputError: the address is malformed, not this machine's, or in use, or the token is none.
        """
        check_token(token)
        host, port = parse_address(address)
        self._socket = _bind(host, port)
        if not is_loopback(host):
            how = "without authentication" if token is None else "without encryption"
            logger.warning("serving at %s:%d %s, for whoever can reach that address", host, port, how)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        access = Access(hosts=_LOCAL | {host.lower()} if is_loopback(host) else None, token=token)
        app = make_app(served, access=access, most_numbers=most_numbers)
        self._server = load("LimitedServer")(app, self._socket, limits)
        self._thread = threading.Thread(target=self._server.run, name="shoal-serve-http", daemon=True)
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
