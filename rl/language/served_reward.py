"""A served language model as a reward function: it is asked about an answer, and what it says is read as a number."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from urllib.parse import urlsplit

from ...runtime import InputError

_SECONDS = 60.0


class ServedReward:
    """A reward function of prompt and answer, for `Prompts` and `RewardActor`, that asks a server with OpenAI's API
    (`POST /v1/completions`), such as `shoal serve RUN`.

        judge = ServedReward("http://127.0.0.1:8000", "{prompt} {answer} Right? ", lambda said: said[:3] == "yes")

    Args:
        url: of the server, without `/v1/completions`.
        question: a text in which `{prompt}` and `{answer}` stand, or a function of both that returns one.
        score: what the reply is worth. Default: the number that it is.
        model: which one of the server's; one of `shoal serve` has but one.
        token: for the header `Authorization: Bearer`.
        max_tokens: of the reply. It is not drawn, but the most likely one (temperature 0).

    Raises InputError for an address that is none, and a question in which something else stands in braces. A call
    raises ConnectionError if the server does not answer within a minute, refuses, or says something else, and
    ValueError if the score of its reply is no number.
    """

    def __init__(
        self,
        url: str,
        question: str | Callable[[str, str], str],
        score: Callable[[str], float] = float,
        *,
        model: str = "",
        token: str | None = None,
        max_tokens: int = 16,
    ) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise InputError(f"url is {url!r}, but must be a server's, such as 'http://127.0.0.1:8000'")
        if isinstance(question, str):
            try:
                question.format(prompt="", answer="")
            except (LookupError, ValueError, AttributeError) as error:
                raise InputError(
                    f"question is {question!r:.80}, in which only {{prompt}} and {{answer}} may stand in braces, other "
                    f"braces doubled ({error!r}); or give a function"
                ) from None
        self._question, self._score, self._model, self._token = question, score, model, token
        self._max_tokens = max_tokens
        self.__name__ = f"ServedReward({self._url.netloc})"

    def __call__(self, prompt: str, answer: str) -> float:
        """What the answer is worth."""
        asked = self._question
        text = asked(prompt, answer) if callable(asked) else asked.format(prompt=prompt, answer=answer)
        said = self._complete(text)
        try:
            return float(self._score(said))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the model at {self._url.netloc} said {said!r:.80}, of which score made no number"
            ) from error

    def _complete(self, text: str) -> str:
        """What the model says to a text."""
        secure = self._url.scheme == "https"
        made = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = made(self._url.netloc, timeout=_SECONDS)
        body = {"prompt": text, "max_tokens": self._max_tokens, "temperature": 0}
        if self._model:
            body["model"] = self._model
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        where = f"the model at {self._url.netloc}"
        try:
            connection.request("POST", f"{self._url.path.rstrip('/')}/v1/completions", json.dumps(body), headers)
            reply = connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"{where} does not answer: {error!r}") from error
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise ConnectionError(
                f"{where} answered with status {reply.status}: {content[:200].decode(errors='replace')}"
            )
        try:
            return str(json.loads(content)["choices"][0]["text"])
        except (ValueError, LookupError, TypeError) as error:
            raise ConnectionError(f"{where} answered with no completion, but {content[:200]!r}") from error
