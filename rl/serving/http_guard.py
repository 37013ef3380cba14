"""Whom an HTTP server answers, and how much of them it takes in: before anything is done with a request."""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

BESIDE_NUMBERS, LONGEST_BODY = 64 * 1024, 32 * 1024 * 1024
"""Bytes of a body beside what grows with the request, and of any body."""
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who is answered.

    Attributes:
        hosts: names that a request's Host may have, without the port; None: any. A browser on this machine that a
            foreign page leads to a name of its own which resolves to 127.0.0.1 (DNS rebinding) sends that name.
        token: what ``Authorization: Bearer …`` must hold; None: nothing is asked for.
    """

    hosts: frozenset[str] | None = None
    token: str | None = None

    def problem(self, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
        """Return status and message for a request that is not answered, else None; header names are in lower case."""
        host = headers.get(b"host")
        if self.hosts is not None and host is not None:
            parts = _HOST.fullmatch(host.decode("latin-1").lower())
            name = parts[1].strip("[]") if parts else host.decode("latin-1")
            if name not in self.hosts:
                return 403, f"Host is {name!r:.80}, which is no name of this server: {', '.join(sorted(self.hosts))}"
        if self.token is not None:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token.encode()):
                return 401, "a token is wanted: send the header Authorization: Bearer TOKEN"
        return None


Told = Callable[[int, str], Any]
"""The object that is sent, of a status and a message."""


def plainly(_: int, message: str) -> dict[str, str]:
    """What is sent where nobody expects another form."""
    return {"error": message}


def guarded(app: "ASGIApp", access: Access, told: Told) -> "ASGIApp":
    """Return the application that answers whom `access` lets in, and sends all others what `told` makes of status and
    message."""

    from starlette.responses import Response

    async def answer(scope: "Scope", receive: "Receive", send: "Send") -> None:
        problem = access.problem(dict(scope["headers"]))
        if problem is None:
            await app(scope, receive, send)
        else:
            status, message = problem
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            body = msgspec.json.encode(told(status, message))
            await Response(body, status, headers, media_type="application/json")(scope, receive, send)

    return answer


class RefusedError(Exception):
    """A request is refused with a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Bodies:
    """The bodies that are held at a time, and how much of them there may be."""

    def __init__(self, longest: int, in_all: int, most: str) -> None:
        """`longest` bytes of one, `in_all` of all; `most` says what takes so many."""
        self._longest, self._in_all, self._held, self._most = longest, in_all, 0, most

    async def receive(self, request: "Request", held: list[bytes]) -> None:
        """Append the parts of a request's body to `held`, as they arrive."""
        announced = request.headers.get("content-length", "")
        length = 0
        if announced.isdecimal() and len(announced) < 20:
            self._check(int(announced))
        async for part in request.stream():
            length += len(part)
            self._check(length)
            if self._held + len(part) > self._in_all:
                raise RefusedError(503, "too many long requests are being received. Ask again later")
            held.append(part)
            self._held += len(part)

    def release(self, held: list[bytes]) -> None:
        """Note that a body is no longer held."""
        self._held -= sum(map(len, held))

    def _check(self, length: int) -> None:
        if length > self._longest:
            raise RefusedError(413, f"the body is longer than {self._longest} bytes, more than {self._most}")
