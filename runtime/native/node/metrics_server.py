"""The node's endpoint for Prometheus: just enough HTTP/1.0 for a scrape, on the node's own loop, loopback only."""

from __future__ import annotations

import socket
from collections.abc import Callable

from .loop import Loop

_MOST_BYTES = 8192
_MOST_CALLERS = 16
_PATIENCE_SECONDS = 5.0
_TEXT = "text/plain; version=0.0.4; charset=utf-8"

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
        self._callers: set[_Caller] = set()
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
        except OSError:
            return
        if len(self._callers) >= _MOST_CALLERS:
            sock.close()
            return
        caller = _Caller(self._loop, sock, self._answer, self._callers.discard)
        self._callers.add(caller)
        # Who says nothing, or does not read, is not waited for.
        self._loop.call_later(_PATIENCE_SECONDS, caller.close)


class _Caller:
    """One connection: a request is read, one answer written, and that is all."""

    def __init__(self, loop: Loop, sock: socket.socket, answer: Answer, done: Callable[[_Caller], None]) -> None:
        self._loop, self._sock, self._answer, self._done = loop, sock, answer, done
        self._request = b""
        self._reply: memoryview | None = None
        self._asked = False
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._on_event)

    def _on_event(self) -> None:
        try:
            if self._reply is not None:
                self._write()
            else:
                self._read()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def _read(self) -> None:
        data = self._sock.recv(_MOST_BYTES)
        if not data:
            self.close()
        elif not self._asked:
            self._request += data
            if b"\r\n\r\n" in self._request or b"\n\n" in self._request:
                self._asked = True
                self._respond(self._request.split(b"\n", 1)[0].split())
            elif len(self._request) > _MOST_BYTES:
                self._asked = True
                self._send("400 Bad Request", "the request is too long\n")

    def _respond(self, words: list[bytes]) -> None:
        if len(words) != 3 or not words[2].startswith(b"HTTP/"):
            self._send("400 Bad Request", "this is no HTTP request\n")
        elif words[0] != b"GET":
            self._send("405 Method Not Allowed", "only GET is answered\n")
        elif words[1].split(b"?")[0] != b"/metrics":
            self._send("404 Not Found", "there is only /metrics\n")
        else:
            self._answer(lambda text: self._send("200 OK", text))

    def _send(self, status: str, text: str) -> None:
        if self._sock.fileno() < 0:
            return  # it has left
        body = text.encode()
        head = f"HTTP/1.0 {status}\r\nContent-Type: {_TEXT}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._reply = memoryview(head.encode() + body)
        self._loop.wait_for_room(self._sock, True)
        self._on_event()

    def _write(self) -> None:
        assert self._reply is not None
        while self._reply:
            self._reply = self._reply[self._sock.send(self._reply) :]
        self.close()

    def close(self) -> None:
        """End the connection, if that has not happened yet."""
        if self._sock.fileno() >= 0:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._done(self)
