"""uvicorn's HTTP/1.1 with limits: on connections, on the time that a request may take to arrive, on the log."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .connections import Connections, Limits, Phase, connections_possible
from .http_guard import Told, plainly
from .log_limit import LogLimit

logger = logging.getLogger("shoal.http")
logger.addFilter(LogLimit())

# After the last file descriptor was given away, seconds until the next try.
_RETRY_SECONDS = 0.5
_TOO_SLOW = {
    Phase.HEAD: "the request's head did not arrive in time",
    Phase.BODY: "the request's body did not arrive in time",
}


class LimitedProtocol(H11Protocol):
    """One connection, in the phases of `Connections`."""

    def __init__(self, *args: Any, admitted: Connections, told: Told, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = logger
        self._admitted, self._told = admitted, told

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, or say that there are too many."""
        super().connection_made(transport)
        if not self._admitted.admit(self, self.client[0] if self.client else ""):
            self._refuse(503, "Service Unavailable", "too many connections are being answered. Ask again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._admitted.forget(self)
        super().connection_lost(exc)

    @property
    def mark(self) -> tuple[Phase, Any]:
        """The phase, and the request that it belongs to."""
        if self.flow.write_paused:
            return Phase.WRITE, self.cycle
        if self.cycle is None or self.cycle.response_complete:
            return Phase.HEAD, self.cycle
        return (Phase.BODY if self.cycle.more_body else Phase.ANSWER), self.cycle

    def drop(self, phase: Phase | None = None) -> None:
        """End the connection; answer a request that was begun and took too long."""
        begun = phase is Phase.BODY or (phase is Phase.HEAD and bool(self.conn.trailing_data[0]))
        if phase is None or self.transport.is_closing() or not begun:
            self.transport.abort()
        else:
            self._refuse(408, "Request Timeout", _TOO_SLOW[phase])

    def _refuse(self, status: int, reason: str, error: str) -> None:
        body = msgspec.json.encode(self._told(status, error))
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        again = "Retry-After: 1\r\n" if status == 503 else ""
        self.transport.write(f"{head}{again}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()


class LimitedServer(uvicorn.Server):
    """uvicorn's server on a socket that listens already; `limits` defaults to what the process has descriptors for,
    `told` makes what is sent of status and message where a request never comes to the application.

    It accepts by itself: asyncio takes as many connections in one turn as the backlog has room for, before any of them
    is counted, and when no descriptor is left, tries and logs it as often in every turn.
    """

    def __init__(
        self, app: Callable[..., Any], listening: socket.socket, limits: Limits | None = None, told: Told = plainly
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=5,
            )
        )
        if limits is None:
            most = connections_possible()
            limits = Limits(in_all=most, per_client=max(1, most // 2))
        self._admitted, self._told = Connections(limits), told
        self._listening = listening
        self._arriving: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup([])
        self._listening.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_report)
        self._loop.add_reader(self._listening, self._accept)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests that are being answered finish, and nothing else."""
        self._loop.remove_reader(self._listening)
        self._admitted.close()
        await super().shutdown([])

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.error("HTTP server: cannot accept connections: %s", error.strerror)
            self._loop.remove_reader(self._listening)
            self._loop.call_later(_RETRY_SECONDS, self._accept_again)
            return
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, accepted))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def _accept_again(self) -> None:
        if not self.should_exit:
            self._loop.add_reader(self._listening, self._accept)

    def _protocol(self) -> LimitedProtocol:
        return LimitedProtocol(self.config, self.server_state, {}, admitted=self._admitted, told=self._told)

    async def on_tick(self, counter: int) -> bool:
        """Drop those whose time is up; uvicorn calls this ten times a second."""
        self._admitted.sweep()
        return await super().on_tick(counter)


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong outside of any request."""
    error = context.get("exception")
    logger.error("HTTP server: %s%s", context["message"], f": {error!r}" if error is not None else "")
