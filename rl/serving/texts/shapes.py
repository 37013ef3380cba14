"""The objects in which OpenAI's clients expect answers, as a whole and in pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...language.asked import Said
from ...language.tokens import END, Tokens


@dataclass
class Shapes:
    """What one request is answered with."""

    chat: bool
    model: str
    tokens: Tokens
    fingerprint: Callable[[int], str]
    """Of a choice: it names the weights that say it."""
    log_probs: bool
    usage: bool
    """Whether pieces of a stream have a place for the counts."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    offsets: dict[int, int] = field(default_factory=dict)
    """Of each choice, how long the text is whose tokens were told."""

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}"

    def whole(self, texts: Sequence[str], said: Sequence[Sequence[Said]], counts: dict[str, int]) -> dict[str, Any]:
        """An answer that is not streamed, of each choice its text and what was said."""
        choices = []
        for index, (text, own) in enumerate(zip(texts, said, strict=True)):
            message = {"role": "assistant", "content": text, "refusal": None}
            content: dict[str, Any] = {"message": message} if self.chat else {"text": text}
            choices.append(self._choice(index, own, content))
        kind = "chat.completion" if self.chat else "text_completion"
        return self._object(kind, choices, 0) | {"usage": counts}

    def begin(self, index: int, echo: str) -> dict[str, Any] | None:
        """The first piece of a choice, if there is one before anything is said."""
        if self.chat:
            return self._piece(index, (), {"delta": {"role": "assistant", "content": "", "refusal": None}})
        return self._piece(index, (), {"text": echo}) if echo else None

    def piece(self, index: int, said: Sequence[Said]) -> dict[str, Any]:
        """What is told of a choice after what was told before."""
        text = "".join(each.text for each in said)
        if not self.chat:
            return self._piece(index, said, {"text": text})
        return self._piece(index, said, {"delta": {"content": text} if text or said[-1].finish is None else {}})

    def counts(self, counts: dict[str, int]) -> dict[str, Any]:
        """The piece of a stream that tells how many tokens there were."""
        return self._object(self._piece_kind, [], 0) | {"usage": counts}

    @property
    def _piece_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _piece(self, index: int, said: Sequence[Said], content: dict[str, Any]) -> dict[str, Any]:
        made = self._object(self._piece_kind, [self._choice(index, said, content)], index)
        return made | {"usage": None} if self.usage else made

    def _object(self, kind: str, choices: list[dict[str, Any]], index: int) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint(index),
            "choices": choices,
        }

    def _choice(self, index: int, said: Sequence[Said], content: dict[str, Any]) -> dict[str, Any]:
        told = [each for each in said if each.token != END] if self.log_probs else None
        if told is None:
            log_probs = None
        else:
            log_probs = {"content": [self._entry(each) for each in told]} if self.chat else self._columns(index, told)
        finish = said[-1].finish if said else None
        return {"index": index, **content, "logprobs": log_probs, "finish_reason": finish}

    def _entry(self, said: Said) -> dict[str, Any]:
        likely = [self._token(token, log_prob) for token, log_prob in said.alternatives]
        return {**self._token(said.token, said.log_prob), "top_logprobs": likely}

    def _token(self, token: int, log_prob: float) -> dict[str, Any]:
        known = self.tokens.bytes_of(token)
        return {"token": self.tokens.decode([token]), "logprob": log_prob, "bytes": None if known is None else [*known]}

    def _columns(self, index: int, said: Sequence[Said]) -> dict[str, Any]:
        texts = [self.tokens.decode([each.token]) for each in said]
        offsets, at = [], self.offsets.get(index, 0)
        for text in texts:
            offsets.append(at)
            at += len(text)
        self.offsets[index] = at
        likely = [{self.tokens.decode([token]): p for token, p in each.alternatives} for each in said]
        return {
            "tokens": texts,
            "token_logprobs": [each.log_prob for each in said],
            "top_logprobs": likely if any(likely) else None,
            "text_offset": offsets,
        }
