"""A served language model over HTTP, as OpenAI's clients expect it.

    POST /v1/completions          a text that goes on          both as a whole, or streamed (server-sent events)
    POST /v1/chat/completions     an answer to messages
    GET  /v1/models               the one model; also /v1/models/NAME
    GET  /health                  {"status": "ok", "version": …, …}

Errors are ``{"error": {"message", "type", "param", "code"}}`` with a status: 400 what is wrong with the request, 401 no
token, 403 another Host, 404 no such model or path, 413 a body that is too long, 429 too many wait (with Retry-After),
503 no replica, 504 not in time. One in the middle of a stream is an event of the same form, and the stream's end.

A client that leaves is noticed at once, also by those that are not streamed, and its answers are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ....runtime import exceptions
from ...language.asked import Asked, Said
from ...language.tokens import Tokens
from ..http_guard import BESIDE_NUMBERS, LONGEST_BODY, Access, Bodies, RefusedError, guarded
from ..queueing import ServerBusyError, ServerClosedError
from .openai import BadRequestError, Model, Wanted, read_request
from .pool import Answer, AnswerChangedError, Weights
from .shapes import Shapes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("shoal.http")
KEEP_ALIVE_SECONDS = 15.0
"""After so long without anything to tell, a stream tells a comment, so that nobody between takes it for dead."""
_PER_TOKEN = 64
"""Bytes of a body for each token of the context: JSON writes a character in up to 12, a token may be a word."""
_LONG = 16 * 1024
"""Bytes of a body that take longer to read than a step of a small model does."""
_DONE = b"data: [DONE]\n\n"
_STATUSES: tuple[tuple[Any, int], ...] = (
    (ServerBusyError, 429),
    (ServerClosedError | AnswerChangedError | exceptions.ActorError | exceptions.WorkerCrashedError, 503),
    (TimeoutError | exceptions.GetTimeoutError, 504),
)


class ServedModel(Protocol):
    """What the application needs of a served language model: see `ServedTexts`."""

    name: str
    tokens: Tokens
    context: int
    most_answers: int
    request_timeout: float | None

    @property
    def weights(self) -> Weights:
        """Those with which the next answer begins."""

    def submit(self, asked: Sequence[Asked], tell: Callable[[int, Said | Exception], None]) -> list[Answer]:
        """Ask without waiting."""

    def drop(self, answers: Sequence[Answer]) -> None:
        """Say no more of these."""

    def next_seed(self) -> int:
        """The seed of a request that names none."""

    def health(self) -> dict[str, Any]:
        """The state of the server."""


def make_text_app(served: ServedModel, access: Access | None = None, *, bodies_in_all: int = 128 << 20) -> ASGIApp:
    """Return the ASGI application that answers for a served language model; `access` says whom, None: everybody."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    longest = min(BESIDE_NUMBERS + served.context * _PER_TOKEN, LONGEST_BODY)
    made = _Application(served, Bodies(longest, bodies_in_all, "what the model's context can hold"))
    routes = [
        Route("/health", made.health, methods=["GET"]),
        Route("/v1/models", made.models, methods=["GET"]),
        Route("/v1/models/{name:path}", made.models, methods=["GET"]),
        Route("/v1/completions", made.completions, methods=["POST"]),
        Route("/v1/chat/completions", made.chat, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: made.refused})
    return app if access is None else guarded(app, access, error_of)


class _Application:
    """What is answered at each path."""

    def __init__(self, served: ServedModel, bodies: Bodies) -> None:
        self._served, self._bodies = served, bodies
        self._model = Model(served.name, served.tokens, served.context, served.most_answers, served.next_seed)

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def health(self, _: Request) -> Response:
        state = self._served.health()
        return _reply(503 if state["status"] == "down" else 200, state)

    async def models(self, request: Request) -> Response:
        name = request.path_params.get("name")
        own = {"id": self._served.name, "object": "model", "created": 0, "owned_by": "shoal"}
        if name is None:
            return _reply(200, {"object": "list", "data": [own]})
        if name == self._served.name:
            return _reply(200, own)
        return _failure(BadRequestError(f"there is no model {name!r:.80}", "model", status=404, code="model_not_found"))

    async def refused(self, _: Request, error: Exception) -> Response:
        status, headers = error.status_code, error.headers  # type: ignore[attr-defined]  # starlette's HTTPException
        known = "there are POST /v1/completions and /v1/chat/completions, GET /v1/models and /health"
        return _reply(status, error_of(status, f"{error.detail}: {known}"), headers)  # type: ignore[attr-defined]

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        from starlette.requests import ClientDisconnect

        held: list[bytes] = []
        try:
            await self._bodies.receive(request, held)
            wanted = await self._read(b"".join(held), chat=chat)
            coming = _Coming(self._served, wanted)
        except ClientDisconnect:
            return _reply(499, error_of(499, "the client left"))  # which nobody reads
        except Exception as error:
            return _failure(error)
        finally:
            self._bodies.release(held)
        if wanted.stream:
            return _stream_of(coming)
        return await _unless_gone(request.receive, coming)

    async def _read(self, body: bytes, *, chat: bool) -> Wanted:
        """What a body asks for. A long one is encoded beside the loop: nobody's stream waits for it."""

        def read() -> Wanted:
            return read_request(_object(body), self._model, chat=chat)

        return await asyncio.to_thread(read) if len(body) > _LONG else read()


class _Coming:
    """The answers to one request, on their way. They are dropped by `drop`, which must be called in any case."""

    def __init__(self, served: ServedModel, wanted: Wanted) -> None:
        self.wanted, self._served = wanted, served
        self._loop = asyncio.get_running_loop()
        self._came: deque[tuple[int, Said | Exception]] = deque()
        self._wake, self._woken = asyncio.Event(), False
        self._ends = None if served.request_timeout is None else self._loop.time() + served.request_timeout
        self.shapes = Shapes(wanted.chat, served.name, served.tokens, self._said_by, wanted.log_probs, wanted.usage)
        self._tokens, self._going = 0, len(wanted.asked)
        self._answers = served.submit(wanted.asked, self._tell)

    def drop(self) -> None:
        """Compute no more of them."""
        self._served.drop(self._answers)

    def _said_by(self, index: int) -> str:
        """What names the weights of a choice, which has begun."""
        return (self._answers[index].weights or self._served.weights).fingerprint

    @property
    def counts(self) -> dict[str, int]:
        """What OpenAI calls usage."""
        asked = self.wanted.prompt_tokens
        return {"prompt_tokens": asked, "completion_tokens": self._tokens, "total_tokens": asked + self._tokens}

    async def news(self, patience: float | None = None) -> AsyncIterator[dict[int, list[Said]]]:
        """What has been said of each choice since the last time; {} after `patience` seconds of silence. Ends with the
        answers; raises what ends one of them instead, and TimeoutError after the server's `request_timeout`."""
        while self._going:
            left = None if self._ends is None else self._ends - self._loop.time()
            limits = [limit for limit in (left, patience) if limit is not None]
            try:
                async with asyncio.timeout(min(limits) if limits else None):
                    await self._wake.wait()
            except TimeoutError:
                if self._ends is not None and self._loop.time() >= self._ends:
                    limit = self._served.request_timeout
                    raise TimeoutError(f"no whole answer within {limit:g} s (request_timeout)") from None
                yield {}
                continue
            self._wake.clear()
            self._woken = False  # before it is looked what came: what comes after that wakes again
            said: dict[int, list[Said]] = {}
            while self._came:
                self._note(said, self._came.popleft())
            if said:  # else the last time had it already
                yield said

    def _note(self, said: dict[int, list[Said]], came: tuple[int, Said | Exception]) -> None:
        index, each = came
        if isinstance(each, Exception):
            raise each
        said.setdefault(index, []).append(each)
        self._tokens += 1
        self._going -= each.finish is not None

    def _tell(self, index: int, said: Said | Exception) -> None:
        """Called by other threads. The loop is woken once for all that came since, and for a whole answer only when
        there is one: to wake it costs more than what it does then."""
        self._came.append((index, said))
        going_on = isinstance(said, Said) and said.finish is None
        if self._woken or (going_on and not self.wanted.stream):
            return
        self._woken = True
        with contextlib.suppress(RuntimeError):  # the server's loop has ended: nobody is left to be told
            self._loop.call_soon_threadsafe(self._wake.set)


async def _whole(coming: _Coming) -> Response:
    said: list[list[Said]] = [[] for _ in coming.wanted.asked]
    async for news in coming.news():
        for index, each in news.items():
            said[index] += each
    texts = [echo + "".join(each.text for each in own) for echo, own in zip(coming.wanted.echo, said, strict=True)]
    return _reply(200, coming.shapes.whole(texts, said, coming.counts))


async def _unless_gone(receive: Receive, coming: _Coming) -> Response:
    """The whole answer; it is dropped when the client leaves before."""
    answering, gone = asyncio.ensure_future(_whole(coming)), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            return _reply(499, error_of(499, "the client left"))  # which nobody reads
        return answering.result()
    except asyncio.CancelledError:
        return _failure(ServerClosedError("the server was closed"))
    except Exception as error:
        return _failure(error)
    finally:
        coming.drop()
        answering.cancel()
        gone.cancel()


def _stream_of(coming: _Coming) -> Response:
    from starlette.responses import Response

    class Events(Response):
        """Server-sent events, until the answers, or the client, have gone."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            telling = asyncio.ensure_future(self._tell(send))
            gone = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait({telling, gone}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
            finally:
                coming.drop()
                telling.cancel()
                gone.cancel()

        async def _tell(self, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in _events(coming):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    made = Events(media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    del made.headers["content-length"]
    return made


async def _events(coming: _Coming) -> AsyncIterator[bytes]:
    shapes, waiting = coming.shapes, dict(enumerate(coming.wanted.echo))
    try:
        async for news in coming.news(KEEP_ALIVE_SECONDS):
            if not news:
                yield b": waiting\n\n"
            for index, said in news.items():
                first = shapes.begin(index, waiting.pop(index)) if index in waiting else None
                if first is not None:  # not before it is known which weights say it
                    yield _event(first)
                if coming.wanted.log_probs or said[-1].finish is not None or any(each.text for each in said):
                    yield _event(shapes.piece(index, said))
    except Exception as error:  # the status was sent: what is left is to say so, and to end
        status, _ = _status_of(error)
        yield _event(error_of(status, str(error)))
        return
    if coming.wanted.usage:
        yield _event(shapes.counts(coming.counts))
    yield _DONE


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except RecursionError:
        raise BadRequestError("the body is nested too deeply") from None
    except ValueError as error:  # msgspec's, and that of text that is not UTF-8
        raise BadRequestError(f"the body is no JSON object: {error}") from None


def error_of(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status, code)
    return {"error": {"message": message[:1000], "type": kind, "param": param, "code": code}}


def _status_of(error: Exception) -> tuple[int, dict[str, str]]:
    for kinds, status in _STATUSES:
        if isinstance(error, kinds):
            return status, _again(status)
    logger.error("a request failed", exc_info=error)
    return 500, {}


def _again(status: int) -> dict[str, str]:
    return {"Retry-After": "1"} if status in (429, 503) else {}


def _failure(error: Exception) -> Response:
    """Return the answer to a request that could not be answered."""
    if isinstance(error, BadRequestError):
        return _reply(error.status, error_of(error.status, str(error), error.param, error.code))
    if isinstance(error, RefusedError):
        return _reply(error.status, error_of(error.status, str(error)), _again(error.status))
    status, headers = _status_of(error)
    return _reply(status, error_of(status, str(error)), headers)


def _reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    from starlette.responses import Response

    return Response(msgspec.json.encode(value), status, dict(headers or {}), media_type="application/json")
