"""What the HTTP server answers: the application behind it, with the check of whom it answers and of what they send.

A request is bounded before anything is done with it: its body by what a batch of observations could take at most, all
bodies that are held at a time together, texts in messages by their length. Numpy sees neither strings, of which a long
one among many short ones makes an array of millions of times their size, nor more numbers than a batch has: 15 million
in lists of four hold the interpreter for 5 seconds.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from concurrent.futures import Future
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ...runtime import ShoalError, exceptions, nearest
from .http_guard import BESIDE_NUMBERS, LONGEST_BODY, Access, Bodies, RefusedError, guarded, plainly
from .queueing import ServerBusyError, ServerClosedError
from .sessions import LONGEST_NAME, SessionInUseError, UnknownSessionError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

logger = logging.getLogger("shoal.http")
_FIELDS = ("observation", "deterministic", "session", "episode_start")
_LONGEST_MESSAGE = 1000
# A number printed in full, on a line of its own.
_PER_NUMBER = 64
# Of a batch that is a little too large, the served policy says how many rows it has and may have.
_SLACK = 1024
# Larger bodies are parsed in a thread, so that the loop goes on reading and writing for others.
_PARSED_AT_ONCE = 64 * 1024
# The key of an object, with its colon: a text that stands elsewhere is a value.
_KEY = re.compile(rb'"(?:[^"\\]|\\.)*"\s*:')


class UnknownPolicyError(ShoalError):
    """There is no policy of this name here, or a request names none where there are several."""


_STATUSES: tuple[tuple[Any, int], ...] = (
    (ServerClosedError | exceptions.ActorError | exceptions.WorkerCrashedError, 503),
    (exceptions.GetTimeoutError, 504),
    (UnknownSessionError | UnknownPolicyError, 404),
    (SessionInUseError, 409),
    (ValueError, 422),
)
_WANTED = 'want {"observation": …}'


class Answering(Protocol):
    """What the server needs of a served policy."""

    def submit(
        self, observations: Any, *, deterministic: bool = True, session: str | None = None, episode_start: bool = False
    ) -> "Future[Any]":
        """Ask without waiting."""

    def end_session(self, session: str) -> None:
        """Forget a session."""

    def health(self) -> dict[str, Any]:
        """Return the state of the server."""


def make_app(
    served: Answering,
    *,
    access: Access | None = None,
    most_numbers: int = 1 << 20,
    bodies_in_all: int = 128 << 20,
    policies: Mapping[str, Answering] = MappingProxyType({}),
) -> "ASGIApp":
    """Return the ASGI application that answers for a served policy.

    Args:
        served: who answers.
        access: whom; None: everybody.
        most_numbers: how many a full batch of observations holds. It bounds the body, too: 413 beyond it.
        bodies_in_all: bytes of all bodies that are being received or answered at a time; beyond, 503.
        policies: who answers under ``/policies/NAME``, by each name.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    longest = min(BESIDE_NUMBERS + most_numbers * _PER_NUMBER, LONGEST_BODY)
    bodies = Bodies(longest, bodies_in_all, "a batch of observations takes")
    answers = _Answers(served, policies, bodies, most_numbers)
    routes = [Route("/health", answers.health, methods=["GET"])]
    for prefix in ("", "/policies/{policy}"):
        routes.append(Route(f"{prefix}/act", answers.act, methods=["POST"]))
        routes.append(Route(f"{prefix}/sessions/{{name:path}}", answers.end, methods=["DELETE"]))
    app = Starlette(routes=routes, exception_handlers={HTTPException: answers.refused})
    return app if access is None else guarded(app, access, plainly)


class _Answers:
    """What is answered at each path."""

    def __init__(
        self, served: Answering, policies: Mapping[str, Answering], bodies: "Bodies", most_numbers: int
    ) -> None:
        self._served, self._policies, self._bodies, self._most_numbers = served, policies, bodies, most_numbers

    async def act(self, request: "Request") -> "Response":
        from starlette.requests import ClientDisconnect

        held: list[bytes] = []
        try:
            await self._bodies.receive(request, held)
            return _reply(200, await _answer(self._named(request), b"".join(held), self._most_numbers))
        except RefusedError as error:
            return _reply(error.status, {"error": str(error)})
        except ClientDisconnect:
            return _reply(499, {"error": "the client left"})  # which nobody reads
        except asyncio.CancelledError:
            return _reply(503, {"error": "the server was closed"})
        except Exception as error:
            return _failure(error)
        finally:
            self._bodies.release(held)

    async def health(self, _: "Request") -> "Response":
        state = self._served.health()
        return _reply(503 if state["status"] == "down" else 200, state)

    async def end(self, request: "Request") -> "Response":
        try:
            self._named(request).end_session(request.path_params["name"])
        except UnknownPolicyError as error:
            return _failure(error)
        return _reply(200, {})

    async def refused(self, _: "Request", error: Exception) -> "Response":
        status, headers = error.status_code, error.headers  # type: ignore[attr-defined]  # starlette's HTTPException
        known = "there are POST /act, DELETE /sessions/NAME and GET /health"
        known += ", the first two also under /policies/NAME" if self._policies else ""
        return _reply(status, {"error": f"{error.detail}: {known}"}, dict(headers or {}))  # type: ignore[attr-defined]

    def _named(self, request: "Request") -> Answering:
        name = request.path_params.get("policy")
        if name is None:
            return self._served
        if name not in self._policies:
            raise UnknownPolicyError(f"there is no policy {name!r:.80}. {nearest(name[:80], self._policies)}")
        return self._policies[name]


def _reply(status: int, value: Any, headers: dict[str, str] | None = None) -> "Response":
    from starlette.responses import Response

    if "error" in value and len(value["error"]) > _LONGEST_MESSAGE:
        value = {"error": value["error"][:_LONGEST_MESSAGE] + "…"}
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def _failure(error: Exception) -> "Response":
    """Return the answer to a request that could not be answered."""
    if isinstance(error, ServerBusyError):
        return _reply(503, {"error": str(error)}, {"Retry-After": "1"})
    for kinds, status in _STATUSES:
        if isinstance(error, kinds):
            return _reply(status, {"error": str(error)})
    logger.error("a request failed", exc_info=error)
    return _reply(500, {"error": f"{type(error).__name__}: {error}"})


async def _answer(served: Answering, body: bytes, most_numbers: int) -> dict[str, Any]:
    if len(body) > _PARSED_AT_ONCE:
        future = await asyncio.to_thread(_ask, served, body, most_numbers)
    else:
        future = _ask(served, body, most_numbers)
    answer = await asyncio.wrap_future(future)
    return {"action": _lists(answer.action), "version": answer.version}


def _lists(action: Any) -> Any:
    """Return an action, nested as its space is, as what JSON has."""
    if isinstance(action, dict):
        return {key: _lists(part) for key, part in action.items()}
    return [_lists(part) for part in action] if isinstance(action, tuple) else action.tolist()


def _ask(served: Answering, body: bytes, most_numbers: int) -> "Future[Any]":
    observation, options = parse(body, most_numbers)
    return served.submit(observation, **options)


def parse(body: bytes, most_numbers: int) -> tuple[Any, dict[str, Any]]:
    """Return the observation of a request's body and what else it says; ValueError says what is wrong with it."""
    fields = _decode(body, dict[str, msgspec.Raw])
    for name in fields:
        if name not in _FIELDS:
            raise ValueError(f"body has an unknown field {name[:80]!r}. {nearest(name[:80], _FIELDS)}")
    if "observation" not in fields:
        raise ValueError(f"body has no field 'observation'; {_WANTED}")
    options: dict[str, Any] = {"deterministic": _flag(fields, "deterministic", b"true")}
    if "session" in fields:
        options["session"] = _session(bytes(fields["session"]))
    if "episode_start" in fields:
        options["episode_start"] = _flag(fields, "episode_start", b"false")
    observation = bytes(fields["observation"])
    if b'"' in _KEY.sub(b"", observation):
        raise ValueError(
            "the observation holds text; want numbers, in lists nested as the observation's shape says, and in objects "
            "with the keys of its parts"
        )
    if observation.count(b",") > most_numbers + _SLACK:
        raise ValueError(f"the observation holds more than {most_numbers} numbers, a full batch")
    return _decode(observation, Any), options


def _flag(fields: Mapping[str, msgspec.Raw], name: str, default: bytes) -> bool:
    flag = bytes(fields.get(name, default)).strip()
    if flag not in (b"true", b"false"):
        raise ValueError(f"{name} is {flag.decode(errors='replace'):.80}; want true or false")
    return flag == b"true"


def _session(text: bytes) -> str:
    if len(text) > 6 * LONGEST_NAME + 2 or not text.strip().startswith(b'"'):  # JSON writes a character in 6 at most
        raise ValueError(
            f"session is {text[:80].decode(errors='replace')}; want a text of 1 to {LONGEST_NAME} characters"
        )
    return str(_decode(text, str))


def _decode(text: bytes, wanted: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=wanted)
    except RecursionError:
        raise ValueError(f"body is nested too deeply; {_WANTED}") from None
    except ValueError as error:  # msgspec's, and that of text that is not UTF-8
        raise ValueError(f"body is no JSON object: {error}; {_WANTED}") from None
