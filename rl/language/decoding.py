"""Sampling answers: a fixed number of rows, each an episode, that read and answer in turns.

    read(ids of each row)      prompts or observations, and the sign that the model's answer begins
    answer(noise, …)           token by token, until every row has ended

All rows go through every forward pass, also those that have ended: a row's bits may depend on the shape of a product,
so that shape must not depend on anything but the group itself. What is sampled depends on the noise that is given, the
weights, and the group's own texts. Between two passes no row is looked at by itself, but where there are stop texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .attention import in_tiles
from .sampling import Sampling
from .tokens import ANSWER, BEGIN, END, PAD, Tokens
from .transformer import LanguageModel

_READ = 128
"""Tokens of each row that are read in a pass."""


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
            torch.zeros((rows, capacity), dtype=torch.float32, device=device) for _ in range(3)
        )
        """Of these tokens: under the whole softmax, and under what top-k and top-p left of it; and the entropy."""
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self._read = torch.zeros_like(self.lengths)
        self._cache = model.cache(rows, 1)
        self._states = torch.zeros((rows, model.state_size), dtype=torch.float32, device=device)

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
        """Append a text's ids to each row, and read them; None leaves a row as it is."""
        lengths = self.lengths.tolist()
        last = self.tokens.gather(1, (self.lengths - 1).clamp(min=0)[:, None])[:, 0].tolist()
        new: list[list[int]] = []
        for length, token, text in zip(lengths, last, texts, strict=True):
            first = [BEGIN] if length == 0 else [] if token == END else [END]
            new.append([] if text is None else [*first, *text, ANSWER])
        rows = torch.tensor([row for row, ids in enumerate(new) for _ in ids])
        at = torch.tensor([length + i for length, ids in zip(lengths, new, strict=True) for i in range(len(ids))])
        self.tokens[rows, at] = torch.tensor([token for ids in new for token in ids], device=self.tokens.device)
        self.lengths += torch.tensor([len(ids) for ids in new], device=self.lengths.device)
        self._advance()

    def answer(self, noise: Tensor, answers: np.ndarray) -> Answers:
        """Let the rows where `answers` [R] bool is True answer, with `noise` [R, N] float64 in [0, 1): N tokens at
        most. A row that runs out of context is cut off, too."""
        context, begins = self._model.context, self.lengths
        most = answers * (context - begins.cpu().numpy()).clip(0, noise.shape[1])
        steps, longest = int(most.max(initial=0)), int(begins.max())
        self._make_room(longest + noise.shape[1])
        goes_on = np.arange(1, steps + 1)[:, None] < most  # [T, R]: whether there may be a token after this one
        counts, going, stopped = np.zeros_like(most), most > 0, np.zeros_like(answers)
        columns, found = noise[:, :steps].T.contiguous()[..., None], []
        places = self._model.ahead(self._cache, begins, steps)
        for drawn, further in zip(columns, goes_on, strict=True):
            chosen, *told = self._sampling.draw(self._model.predict(self._states), drawn)
            found.append((chosen, *told))
            counts += going
            tokens = chosen[:, 0]
            going &= further & (tokens.cpu().numpy() != END)
            if self._sampling.stop:
                self._stop([each[0] for each in found], going, stopped)
            if not going.any():
                break
            # Rows that have ended go on: what they say is nobody's, and lies beyond what is ever looked at.
            self._states = self._model.follow(tokens, next(places))
        own = torch.from_numpy(counts).to(begins.device)
        self.lengths = begins + own
        self._read += (own - 1).clamp(min=0)  # nobody has read its own last token
        return self._note(begins, own, found, stopped)

    def _make_room(self, places: int) -> None:
        """Have a cache of so many places, or of a context: no more memory is touched than is needed."""
        places = min(places, self._model.context)
        if self._cache.capacity <= places:
            before, self._cache = self._cache, self._model.cache(len(self.tokens), places)
            self._cache.begin_with(before)

    def _stop(self, said: Sequence[Tensor], going: np.ndarray, stopped: np.ndarray) -> None:
        """End the rows whose answers end with a stop text by now."""
        recent = torch.cat(tuple(said[-self._sampling.longest_stop :]), 1).tolist()
        for row in np.flatnonzero(going).tolist():
            if self._sampling.stops(self._model.tokens, recent[row]):
                going[row], stopped[row] = False, True

    def _note(self, begins: Tensor, counts: Tensor, found: Sequence[Sequence[Tensor]], stopped: np.ndarray) -> Answers:
        """Write down what was `found` in each step: tokens, and the numbers that belong to them."""
        if not found:
            return Answers([[] for _ in stopped], ~stopped)
        tokens, log_probs, sampled, disorder = (torch.cat(each, 1) for each in zip(*found, strict=True))
        valid = torch.arange(len(found), device=counts.device) < counts[:, None]
        rows, steps = valid.nonzero(as_tuple=True)
        at = begins[rows] + steps
        for kept, column in (
            (self.tokens, tokens),
            (self.log_probs, log_probs),
            (self.sampled_log_probs, sampled),
            (self.entropies, -disorder),
        ):
            kept[rows, at] = column[valid]
        self.mask[rows, at] = True
        ids = [row[:count] for row, count in zip(tokens.tolist(), counts.tolist(), strict=True)]
        ended = np.array([count == 0 or row[-1] == END for count, row in zip(counts.tolist(), ids, strict=True)])
        return Answers([row[:-1] if row and row[-1] == END else row for row in ids], ended | stopped)

    def _advance(self) -> None:
        """Read what was not read yet, and know the states after it."""
        self._make_room(int(self.lengths.max()))
        while bool((counts := (self.lengths - self._read).clamp(max=_READ)).any()):
            most = int(counts.max())
            places = self._read[:, None] + torch.arange(most, device=counts.device)
            chunk = self.tokens.gather(1, places.clamp(max=self.tokens.shape[1] - 1))
            reach = in_tiles(int((self._read + counts).max()))
            last = (counts - 1).clamp(min=0)
            states = self._model.extend(self._cache, chunk, self._read, last, reach)
            self._states = torch.where((counts > 0)[:, None], states, self._states)
            self._read += counts
