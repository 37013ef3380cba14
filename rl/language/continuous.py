"""Continuous batching (Yu et al., 2022, *Orca*): answers begin and end at any step, in places of a cache of a fixed
shape.

    add(key, asked)      waits for a place          a step: read a little of what is asked · choose a token for each
    drop(key)            frees its place                    answer · read those tokens, all rows together
    step() → [(key, Said), …]        or its two parts: say() → [(key, Said), …], and read()

An answer does not depend on what else is answered. Its numbers come from products whose shapes give the same bits
(`agreement.py`): prompts are read in chunks that follow from their own length, alone or side by side, answers in passes
over the places up to the last one that is taken; and attention goes over the cache in blocks (`attention.py`). Its
noise is its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from .agreement import agreement
from .asked import LENGTH, STOP, Asked, Said, room
from .sampling import COLDEST, choose
from .text_stream import TextStream
from .tokens import END
from .transformer import LanguageModel

PROMPT_TOKENS = 128
"""Tokens of prompts that a step reads at most: those who are being answered wait no longer for the next token."""
_ALL = 1 << 30
"""More tokens than there are."""
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
    unread: int
    """Tokens of the prompt that are not in the cache; 0: a token can be chosen."""
    settings: tuple[float, int, float]
    """As `choose` takes them, which no number asked for makes overflow."""
    read: int = 0
    """Tokens of prompt and answer in the cache."""
    said: list[int] = field(default_factory=list)

    @property
    def chunk(self) -> int:
        """The shape in which the next tokens of the prompt are read; 0: all were."""
        left = self.unread
        return 0 if not left else next((length for length in _CHUNKS if length >= left), _CHUNKS[-1])


class ContinuousDecoding(Generic[Key]):
    """Answers of one model, `places` at a time. Call under `torch.inference_mode`; from one thread."""

    @torch.inference_mode()
    def __init__(self, model: LanguageModel, places: int) -> None:
        self.model, self.places = model, places
        self.steps = 0
        """Passes so far."""
        self._cache = model.cache(places)
        self._agreed = agreement(model, self._cache, _CHUNKS, PROMPT_TOKENS)
        self._passes = {rows: self._cache.part(0, rows) for rows in self._agreed.answers}
        """The cache of so many places, the first ones: a pass over answers is always over one of these."""
        self._states = torch.zeros((places, model.state_size), dtype=torch.float32, device=model.flat.device)
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
        warm = asked.temperature if asked.temperature >= COLDEST else 0.0
        settings = warm, min(asked.top_k, _ALL), asked.top_p
        self._waiting.append(_Answer(key, asked, asked.noise(most), text, len(asked.prompt), settings))

    def drop(self, key: Key) -> None:
        """Say no more of an answer; harmless for one that has ended."""
        self._waiting = deque(answer for answer in self._waiting if answer.key != key)
        self._rows = [None if row is not None and row.key == key else row for row in self._rows]

    def step(self) -> list[tuple[Key, Said]]:
        """Choose the next token of each answer whose prompt was read, and return them in the order of their places."""
        said = self.say()
        self.read()
        return said

    def say(self) -> list[tuple[Key, Said]]:
        """The first part of a step, all that is told of it. `read` must follow before anything else is called; it may
        in another thread."""
        self._place()
        self._read_prompts()
        self.steps += 1
        return self._choose()

    def _place(self) -> None:
        for place, row in enumerate(self._rows):
            if row is None and self._waiting:
                self._rows[place] = self._waiting.popleft()

    def _read_prompts(self) -> None:
        """Read chunks of prompts, those of the first places first, as many as a step may."""
        left = PROMPT_TOKENS
        while left > 0:
            chunks = [0 if row is None else row.chunk for row in self._rows]
            first = next((place for place, length in enumerate(chunks) if length), None)
            if first is None:
                return
            length = chunks[first]
            alike = next((i for i, other in enumerate(chunks[first:]) if other != length), len(chunks) - first)
            count = self._agreed.prompts_together(length, min(alike, left // length))
            self._read_chunks(first, [row for row in self._rows[first : first + count] if row is not None], length)
            left -= count * length

    def _read_chunks(self, first: int, rows: list[_Answer[Key]], length: int) -> None:
        """Read the next chunk of prompts that have places side by side."""
        begins = [row.read for row in rows]
        parts = [row.asked.prompt[row.read : row.read + length] for row in rows]
        for row, part in zip(rows, parts, strict=True):
            row.read += len(part)
            row.unread -= len(part)
        tokens = self._numbers([[*part, *[0] * (length - len(part))] for part in parts])
        begin, last = self._numbers(begins), self._numbers([len(part) - 1 for part in parts])
        reach = self._agreed.reach(max(row.read for row in rows))
        part_of_cache = self._cache.part(first, len(rows))
        self._states[first : first + len(rows)] = self.model.extend(part_of_cache, tokens, begin, last, reach)

    def _choose(self) -> list[tuple[Key, Said]]:
        ready = [None if row is None or row.unread else row for row in self._rows]
        count = 1 + max((place for place, row in enumerate(ready) if row is not None), default=-1)
        if not count:
            return []
        asked = ready[: self._agreed.rows(count)]
        noise = np.array([0.0 if row is None else row.noise[len(row.said)] for row in asked])
        settings = [_PLAIN if row is None else row.settings for row in asked]
        logits = self.model.predict(self._states[: len(asked)])
        chosen, log_policy = choose(logits, torch.from_numpy(noise).to(logits.device), settings)
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

    def read(self) -> None:
        """The second part, most of a step's work: read the tokens that were chosen, in one pass over the places up to
        the last one that is taken."""
        going = [row if row is not None and row.said else None for row in self._rows]
        taken = 1 + max((place for place, row in enumerate(going) if row is not None), default=-1)
        if not taken:
            return
        count = self._agreed.rows(taken)
        going = going[:count]
        nobodys = self.model.context  # the last place of the cache, which no row's attention is for
        begins = [nobodys if row is None else row.read for row in going]
        tokens = [0 if row is None else row.said[-1] for row in going]
        for row in going:
            if row is not None:
                row.read += 1
        reach = self._agreed.reach(max(row.read for row in going if row is not None))
        zero = torch.zeros(count, dtype=torch.long, device=self._states.device)
        part = self._passes[count]
        # A prompt that is being read loses its state here, and has another one before it is asked for.
        self._states[:count] = self.model.extend(
            part, self._numbers(tokens)[:, None], self._numbers(begins), zero, reach
        )

    def _numbers(self, values: list[Any]) -> Tensor:
        return torch.tensor(values, device=self._states.device)


_PLAIN = 1.0, 0, 1.0
