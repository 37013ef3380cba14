"""Continuous batching (Yu et al., 2022, *Orca*): answers begin and end at any step, in places of a cache of a fixed
shape.

    add(key, asked)      waits for a place          a step: read a little of what is asked · choose a token for each
    drop(key)            frees its place                    answer · read those tokens, all rows together
    step() → [(key, Said), …]

An answer does not depend on what else is answered. Its numbers come from products whose shapes are always the same:
prompts are read alone, in chunks that follow from their own length, answers in passes over all places, full or not; and
attention goes over the cache in blocks (`attention.py`). Its noise is its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from .asked import LENGTH, STOP, Asked, Said, room
from .sampling import choose
from .text_stream import TextStream
from .tokens import END
from .transformer import Cache, LanguageModel

PROMPT_TOKENS = 128
"""Tokens of prompts that a step reads at most: those who are being answered wait no longer for the next token."""
_CHUNKS = (8, 16, 32, 64)
"""Shapes in which prompts are read; what a chunk has beyond the prompt is nobody's."""

Key = TypeVar("Key", bound=Hashable)


@dataclass
class _Answer(Generic[Key]):
    """One that waits, or has a place."""

    key: Key
    asked: Asked
    noise: np.ndarray
    text: TextStream
    read: int = 0
    """Tokens of prompt and answer in the cache."""
    said: list[int] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether the prompt was read, so that a token can be chosen."""
        return self.read >= len(self.asked.prompt)


class ContinuousDecoding(Generic[Key]):
    """Answers of one model, `places` at a time. Call under `torch.inference_mode`; from one thread."""

    def __init__(self, model: LanguageModel, places: int) -> None:
        self.model, self.places = model, places
        self.steps = 0
        """Passes over all places so far."""
        self._cache = model.cache(places)
        self._logits = torch.zeros((places, model.tokens.size), device=model.flat.device)
        self._waiting: deque[_Answer[Key]] = deque()
        self._rows: list[_Answer[Key] | None] = [None] * places

    @property
    def busy(self) -> int:
        """Answers that wait, or have a place."""
        return len(self._waiting) + sum(row is not None for row in self._rows)

    def add(self, key: Key, asked: Asked) -> None:
        """Begin an answer at the next step, or once there is a place; InputError for a prompt that has no room."""
        most = room(self.model.context, asked.prompt, asked.max_new_tokens)
        text = TextStream(self.model.tokens, asked.stop)
        self._waiting.append(_Answer(key, asked, asked.noise(most), text))

    def drop(self, key: Key) -> None:
        """Say no more of an answer; harmless for one that has ended."""
        self._waiting = deque(answer for answer in self._waiting if answer.key != key)
        self._rows = [None if row is not None and row.key == key else row for row in self._rows]

    def step(self) -> list[tuple[Key, Said]]:
        """Choose the next token of each answer whose prompt was read, and return them in the order of their places."""
        self._place()
        self._read_prompts()
        said = self._choose()
        self._read_answers()
        self.steps += 1
        return said

    def _place(self) -> None:
        for place, row in enumerate(self._rows):
            if row is None and self._waiting:
                self._rows[place] = self._waiting.popleft()

    def _read_prompts(self) -> None:
        """Read chunks of prompts, whose answers came first goes first, as many as a step may."""
        left = PROMPT_TOKENS
        for place, row in enumerate(self._rows):
            while left > 0 and row is not None and not row.ready:
                ids = row.asked.prompt[row.read : row.read + _CHUNKS[-1]]
                length = next(length for length in _CHUNKS if length >= len(ids))
                tokens = torch.zeros((1, length), dtype=torch.long)
                tokens[0, : len(ids)] = torch.tensor(ids)
                row.read += len(ids)
                own = Cache(*(each[:, place : place + 1] for each in (self._cache.keys, self._cache.values)))
                begin, last = (self._numbers([at]) for at in (row.read - len(ids), len(ids) - 1))
                self._logits[place] = self.model.extend(own, tokens.to(begin.device), begin, last, row.read)[0]
                left -= length

    def _choose(self) -> list[tuple[Key, Said]]:
        asked = [None if row is None or not row.ready else row for row in self._rows]
        if not any(asked):
            return []
        noise = np.array([0.0 if row is None else row.noise[len(row.said)] for row in asked])
        settings = [(1.0, 0, 1.0) if row is None else _settings(row.asked) for row in asked]
        chosen, log_policy = choose(self._logits, torch.from_numpy(noise).to(self._logits.device), settings)
        most = max(0 if row is None else row.asked.alternatives for row in asked)
        found = log_policy.gather(-1, chosen[:, None])[:, 0].tolist()
        likely = log_policy.topk(min(most, log_policy.shape[-1])) if most else None
        said = []
        for place, (row, token, log_prob) in enumerate(zip(asked, chosen.tolist(), found, strict=True)):
            if row is None:
                continue
            told: tuple[tuple[int, float], ...] = ()
            if likely is not None:
                pairs = zip(likely.indices[place].tolist(), likely.values[place].tolist(), strict=True)
                told = tuple(pairs)[: row.asked.alternatives]
            text, finish = self._take(row, token)
            said.append((row.key, Said(token, log_prob, text, finish, told)))
            if finish is not None:
                self._rows[place] = None
        return said

    def _take(self, row: _Answer[Key], token: int) -> tuple[str, str | None]:
        """Note a token of an answer; return what can be told now, and why it has ended if it has."""
        row.said.append(token)
        if token == END:
            return row.text.end(), STOP
        text, stopped = row.text.add(token)
        if stopped:
            return text, STOP
        return (text + row.text.end(), LENGTH) if len(row.said) == len(row.noise) else (text, None)

    def _read_answers(self) -> None:
        """Read the tokens that were chosen, in one pass over all places."""
        going = [row if row is not None and row.said else None for row in self._rows]
        if not any(going):
            return
        nobodys = self.model.context  # the last place of the cache, which no row's attention is for
        begins = [nobodys if row is None else row.read for row in going]
        tokens = [0 if row is None else row.said[-1] for row in going]
        reach = 1 + max(row.read for row in going if row is not None)
        zero = self._numbers([0] * self.places)
        logits = self.model.extend(self._cache, self._numbers(tokens)[:, None], self._numbers(begins), zero, reach)
        for row in going:
            if row is not None:
                row.read += 1
        self._logits = torch.where(self._numbers([row is not None for row in going])[:, None], logits, self._logits)

    def _numbers(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._logits.device)


def _settings(asked: Asked) -> tuple[float, int, float]:
    return asked.temperature, asked.top_k, asked.top_p
