"""A served language model: replica actors behind one handle.

caller's thread ─┐                      ┌─ thread 0 ──▶ TextReplica[0]     each call a step of all its answers
OpenAI's HTTP ───┴─▶ what waits ──asked─┤
                                        └─ thread 1 ──▶ TextReplica[1]     (actors, each in its own process)
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ....envs import derive_seed
from ....runtime import InputError
from ...language.asked import Asked, Said, conversation, room, texts_of
from ...language.tokens import Tokens, read_tokenizer, tokens_between
from ..http import HttpServer
from ..http_guard import Access
from ..shown import in_a_line
from ..source import PolicySource, Savable, read_policies
from .app import error_of, make_text_app
from .pool import Answer, TextPool, Weights

if TYPE_CHECKING:
    from starlette.types import ASGIApp


_REQUESTS = 8
"""So many requests over HTTP, at least, have room for their answers to wait: none has more than its share."""


class ServedTexts:
    """Handle of a served language model, made by `serve`; safe to use from many threads. Close it, or use it in a
    `with`.

    Attributes:
        name: what requests call the model: the run's name.
        http_address: URL of the HTTP server; None without one.
    """

    def __init__(
        self,
        source: PolicySource,
        *,
        name: str,
        replicas: int,
        places: int,
        most_waiting: int,
        answer_timeout: float | None,
        request_timeout: float | None,
        seed: int,
        threads: int,
    ) -> None:
        self.name, self.request_timeout = name, request_timeout
        self.most_answers = max(places, most_waiting // _REQUESTS)
        self.http_address: str | None = None
        self._http: HttpServer | None = None
        self._spec = source.spec
        chosen = source.spec.architecture
        self.context: int = chosen.context
        self.tokens: Tokens = tokens_between(
            read_tokenizer(chosen.tokenizer), source.observation_space, source.action_space
        )
        self._seed, self._requests, self._started = seed, itertools.count(), time.monotonic()
        self._pool = TextPool(
            source.files,
            _weights(source),
            replicas=replicas,
            places=places,
            most_waiting=most_waiting,
            answer_timeout=answer_timeout,
            threads=threads,
        )

    # Asking -----------------------------------------------------------------------------------------------------

    def stream(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int | None = None,
        samples: int = 1,
        seed: int | None = None,
        **sampling: Any,
    ) -> Iterator[tuple[int, Said]]:
        """Do as `LanguagePolicy.stream`: with the same weights and `seed`, the same answers. None: a seed that follows
        from that of `serve` and the number of the request. Who stops iterating stops the answers.

        Raises what `LanguagePolicy.stream` does, ServerBusyError and ServerClosedError; TimeoutError after
        `request_timeout`.
        """
        seed, asked = self.next_seed() if seed is None else seed, []
        for index in range(len(texts_of(prompts)) * samples):
            ids = conversation([self.tokens.encode(prompts[index // samples])])
            most = room(self.context, ids, max_new_tokens)
            asked.append(Asked(prompt=ids, max_new_tokens=most, seed=seed, index=index, **sampling))
        coming: queue.SimpleQueue[tuple[int, Said | Exception]] = queue.SimpleQueue()
        answers = self.submit(asked, lambda index, said: coming.put((index, said)))
        return self._coming(coming, answers)

    def _coming(
        self, coming: queue.SimpleQueue[tuple[int, Said | Exception]], answers: Sequence[Answer]
    ) -> Iterator[tuple[int, Said]]:
        deadline = None if self.request_timeout is None else time.monotonic() + self.request_timeout
        going = len(answers)
        try:
            while going:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    index, said = coming.get(timeout=left)
                except queue.Empty:
                    raise TimeoutError(f"no answer within {self.request_timeout:g} s (request_timeout)") from None
                if isinstance(said, Exception):
                    raise said
                going -= said.finish is not None
                yield index, said
        finally:
            self.drop(answers)

    def generate(self, prompts: Sequence[str], **options: Any) -> list[str]:
        """An answer to each prompt; arguments and errors are those of `stream`, whose texts these are."""
        answers = [""] * (len(prompts) * options.get("samples", 1))
        for index, said in self.stream(prompts, **options):
            answers[index] += said.text
        return answers

    def submit(self, asked: Sequence[Asked], tell: Callable[[int, Said | Exception], None]) -> list[Answer]:
        """Ask without waiting: `tell(number, said)` is called from other threads with what is said, and with the
        exception that ends an answer instead. Raises ServerBusyError and ServerClosedError; then none is answered."""

        def to(index: int) -> Callable[[Said | Exception], None]:
            return lambda said: tell(index, said)

        answers = [Answer(each, to(index)) for index, each in enumerate(asked)]
        self._pool.submit(answers)
        return answers

    def drop(self, answers: Sequence[Answer]) -> None:
        """Say no more of these: what is not needed is not computed after the step that is on its way."""
        self._pool.drop(answers)

    def next_seed(self) -> int:
        """The seed of a request that names none."""
        return derive_seed(self._seed, "requests", next(self._requests))

    # Life -------------------------------------------------------------------------------------------------------

    def update(self, policy: Savable | str | Path) -> None:
        """Take the weights of a policy, or of the newest checkpoint of a run, for answers that begin from now on; those
        on their way end with the weights with which they began.

        Raises InputError for no policy, a damaged one, or one of another network or other tokens.
        """
        sources, _ = read_policies(policy)
        source = sources.get("")
        if source is None or source.spec is None or source.spec.to_json() != self._spec.to_json():
            raise InputError("update takes weights of the model that is served, and this is another one: serve it anew")
        self._pool.update(source.files, _weights(source))

    @property
    def weights(self) -> Weights:
        """Those with which the next answer begins."""
        return self._pool.weights

    def health(self) -> dict[str, Any]:
        """Return what `GET /health` shows.

        `status` is "ok", "degraded" (fewer replicas than asked for) or "down"; `version` is that of the weights for
        new answers, `updating` says whether a replica has yet to load them; `waiting` and `running` are answers now;
        `requests`, `steps` (of any replica), `tokens` and `restarts` count since the start; `last_failure` says why a
        replica was last replaced.
        """
        return self._pool.health() | {"uptime_seconds": round(time.monotonic() - self._started, 3)}

    def listen(self, address: str, *, token: str | None = None) -> str:
        """Start the HTTP server at "HOST:PORT" (port 0: any free one); return its URL. With a `token`, it answers only
        requests with the header ``Authorization: Bearer TOKEN``, which OpenAI's clients call the API key."""
        if self._http is not None:
            raise InputError(f"this model is served over HTTP already, at {self.http_address}")

        def make(access: Access) -> ASGIApp:
            return make_text_app(self, access)

        self._http = HttpServer(make, address, token=token, told=error_of)
        self.http_address = self._http.url
        return self._http.url

    def close(self) -> None:
        """Stop listening and end the replicas; answers on their way have a few seconds. Harmless a second time."""
        if self._http is not None:
            self._http.close()
            self._http, self.http_address = None, None
        self._pool.close()

    def __repr__(self) -> str:
        told = self.health()
        return in_a_line(self, {"name": self.name} | {name: told[name] for name in ("status", "replicas", "version")})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _weights(source: PolicySource) -> Weights:
    return Weights(source.version, source.weights_sha256)
