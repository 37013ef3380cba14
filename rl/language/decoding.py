"""Sampling answers: a fixed number of rows, each an episode, that read and answer in turns.

    read(ids of each row)      prompts or observations, and the sign that the model's answer begins
    answer(noise, …)           token by token, until every row has ended

All rows go through every forward pass, also those that have ended: a row's bits may depend on the shape of a product,
so that shape must not depend on anything but the group itself. What is sampled depends on the noise that is given, the
weights, and the group's own texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .sampling import Sampling
from .tokens import ANSWER, BEGIN, END, PAD, Tokens
from .transformer import LanguageModel


@dataclass(frozen=True)
class Answers:
    """What all rows said in a turn."""

    ids: list[list[int]]
    """Tokens of each row, in order, without END; empty of rows that did not answer."""
    ended: np.ndarray
    """[R] bool: whether the row said END, or a stop text; else it was cut off."""


class Decoding:
    """Episodes of `rows` rows, side by side. Call under `torch.inference_mode`."""

    def __init__(self, model: LanguageModel, rows: int, sampling: Sampling) -> None:
        self._model, self._sampling = model, sampling
        device, capacity = model.flat.device, model.context + 1
        self.tokens = torch.full((rows, capacity), PAD, device=device)
        self.mask = torch.zeros((rows, capacity), dtype=torch.bool, device=device)
        """Tokens that the model has sampled."""
        self.log_probs, self.sampled_log_probs, self.entropies = (
            torch.zeros((rows, capacity), device=device) for _ in range(3)
        )
        """Of these tokens: under the whole softmax, and under what top-k and top-p left of it; and the entropy."""
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self._read = torch.zeros_like(self.lengths)
        self._cache = model.cache(rows)
        self._logits = torch.zeros((rows, model.tokens.size), device=device)

    @property
    def vocabulary(self) -> Tokens:
        """What encodes and decodes texts."""
        return self._model.tokens

    def fits(self, row: int, text: Sequence[int]) -> bool:
        """Whether a row has room for a further text and at least one token of an answer."""
        return int(self.lengths[row]) + len(text) + 4 <= self._model.context

    def check_prompt(self, prompt: str, ids: Sequence[int]) -> None:
        """Raise ValueError for a prompt, the first text of a row, that has no room."""
        if not self.fits(0, ids):
            raise ValueError(
                f"the prompt {prompt!r:.80} has {len(ids)} tokens, which leave no room for an answer in the context of "
                f"{self._model.context}: choose a larger policy_kwargs['context']"
            )

    def read(self, texts: Sequence[Sequence[int] | None]) -> None:
        """Append a text's ids to each row; None leaves a row as it is."""
        for row, text in enumerate(texts):
            if text is None:
                continue
            before = int(self.lengths[row])
            first = [BEGIN] if before == 0 else [] if int(self.tokens[row, before - 1]) == END else [END]
            ids = torch.tensor([*first, *text, ANSWER], device=self.tokens.device)
            self.tokens[row, before : before + len(ids)] = ids
            self.lengths[row] += len(ids)
        self._advance()

    def answer(self, noise: Tensor, answers: np.ndarray) -> Answers:
        """Let the rows where `answers` [R] bool is True answer, with `noise` [R, N] float64 in [0, 1): N tokens at
        most. A row that runs out of context is cut off, too."""
        model, sampling = self._model, self._sampling
        alive = torch.from_numpy(answers).to(self.tokens.device)
        ended = ~alive
        said: list[list[int]] = [[] for _ in answers]
        rows = torch.arange(len(answers), device=alive.device)
        for t in range(noise.shape[1]):
            alive = alive & (self.lengths < model.context)
            if not bool(alive.any()):
                break
            chosen, log_probs, sampled, entropies = sampling.draw(self._logits, noise[:, t])
            here, at = rows[alive], self.lengths[alive]
            self.tokens[here, at], self.mask[here, at] = chosen[alive], True
            self.log_probs[here, at], self.sampled_log_probs[here, at] = log_probs[alive], sampled[alive]
            self.entropies[here, at] = entropies[alive]
            self.lengths[here] += 1
            for row, token in zip(here.tolist(), chosen[alive].tolist(), strict=True):
                if token != END:
                    said[row].append(token)
                if token == END or sampling.stops(model.tokens, said[row]):
                    ended[row], alive[row] = True, False
            if t + 1 < noise.shape[1] and bool(alive.any()):
                self._advance()
        return Answers(said, ended.cpu().numpy())

    def _advance(self) -> None:
        """Read what was not read yet, and know the logits after it."""
        counts = self.lengths - self._read
        most = int(counts.max())
        places = self._read[:, None] + torch.arange(most, device=counts.device)
        chunk = self.tokens.gather(1, places.clamp(max=self.tokens.shape[1] - 1))
        logits = self._model.extend(self._cache, chunk, self._read, (counts - 1).clamp(min=0))
        self._logits = torch.where((counts > 0)[:, None], logits, self._logits)
        self._read = self.lengths.clone()
