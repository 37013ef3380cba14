"""The node's endpoint for Prometheus: just enough HTTP/1.0 for a scrape, on the node's own loop, loopback only.

A browser that a foreign page leads to 127.0.0.1 under a name of its own (DNS rebinding) sends that name as Host, so
only this machine's names are answered. When there are too many callers, the one that has kept the node waiting longest
gives way: slow ones shut nobody out.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

from .loop import Loop

_MOST_BYTES = 8192
_MOST_CALLERS = 16
_PATIENCE_SECONDS = 5.0
_RETRY_SECONDS = 0.05
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_HOST = re.compile(rb"^host:[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_LOCAL = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:\d*)?", re.IGNORECASE)

Answer = Callable[[Callable[[str], None]], None]


class MetricsServer:
    """Listens from its construction on.

    Args:
        loop: the node's loop.
        port: where to listen on 127.0.0.1; 0 takes any free port.
        answer: is called with what to call with the metrics' text, now or later.

    Raises:
        SystemExit: the port is taken; with a sentence that says so.
    """

    def __init__(self, loop: Loop, port: int, answer: Answer) -> None:
        self._loop, self._answer = loop, answer
        self._callers: dict[_Caller, None] = {}  # the oldest first
        try:
            self._listener = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            raise SystemExit(
                f"metrics_port={port}: cannot listen there: {error.strerror}. Use 0 for any free port"
            ) from None
        self._listener.setblocking(False)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}/metrics"
        loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left: it would be as ready in each turn of the loop
            self._loop.unwatch(self._listener.fileno())
            self._loop.call_later(1.0, lambda: self._loop.watch(self._listener.fileno(), self._accept))
            return
        if len(self._callers) >= _MOST_CALLERS:
            min(self._callers, key=lambda caller: caller.asked).close()
        caller = _Caller(self._loop, sock, self._answer, self._forget)
        self._callers[caller] = None
        # Who says nothing, or does not read, is not waited for.
        self._loop.call_later(_PATIENCE_SECONDS, caller.close)

    def _forget(self, caller: _Caller) -> None:
        self._callers.pop(caller, None)


class _Caller:
    """One connection: a request is read, one answer written, and that is all."""

    def __init__(self, loop: Loop, sock: socket.socket, answer: Answer, done: Callable[[_Caller], None]) -> None:
        self._loop, self._sock, self._answer, self._done = loop, sock, answer, done
        self._request = b""
        self.asked = False
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._request += data
        if not data:
            self.close()
        elif b"\r\n\r\n" in self._request or b"\n\n" in self._request:
            self._take(self._request)
        elif len(self._request) > _MOST_BYTES:
            self._take(b"")

    def _take(self, request: bytes) -> None:
        # What else it says is not read: the loop would find it ready again in each turn.
        self.asked = True
        self._loop.unwatch(self._sock.fileno())
        words = request.split(b"\n", 1)[0].split()
        host = _HOST.search(request)
        if len(words) != 3 or not words[2].startswith(b"HTTP/"):
            self._send("400 Bad Request", "this is no HTTP request, or one that is too long\n")
        elif host is not None and not _LOCAL.fullmatch(host[1]):
            self._send("403 Forbidden", "Host is no name of this machine: use 127.0.0.1 or localhost\n")
        elif words[0] != b"GET":
            self._send("405 Method Not Allowed", "only GET is answered\n")
        elif words[1].split(b"?")[0] != b"/metrics":
            self._send("404 Not Found", "there is only /metrics\n")
        else:
            self._answer(lambda text: self._send("200 OK", text))

    def _send(self, status: str, text: str) -> None:
        body = text.encode()
        head = f"HTTP/1.0 {status}\r\nContent-Type: {_TEXT}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._write(memoryview(head.encode() + body))

    def _write(self, reply: memoryview) -> None:
        if self._sock.fileno() < 0:
            return  # it has left
        try:
            while reply:
                reply = reply[self._sock.send(reply) :]
        except BlockingIOError:
            self._loop.call_later(_RETRY_SECONDS, lambda: self._write(reply))
            return
        except OSError:
            reply = reply[:0]
        self.close()

    def close(self) -> None:
        """End the connection, if that has not happened yet."""
        if self._sock.fileno() >= 0:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._done(self)
