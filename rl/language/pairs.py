"""Pairs of answers to a prompt, of which the first is preferred, as rows of tokens.

This module doesn't import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...envs import stream
from ...runtime import InputError
from .packing import Text, conversation
from .tokens import PAD, Tokens

_MEASURED = 256
"""Pairs that are held out, at most: what is measured after each iteration."""


@dataclass(frozen=True)
class Pairs:
    """Pairs in an order of their own in each epoch: `tokens` [N, 2, T] int32, chosen and rejected answer after their
    prompt, filled up with PAD; `mask` [N, 2, T] bool, the answers' own tokens, END included."""

    tokens: np.ndarray
    mask: np.ndarray
    seed: int
    learned: np.ndarray
    """Indices of the pairs to learn from."""
    held_out: np.ndarray
    """Of the others."""

    @staticmethod
    def of(rows: Sequence[tuple[str, str, str]], tokens: Tokens, context: int, seed: int, held_out: float) -> Pairs:
        """Rows of prompt, chosen and rejected answer. InputError names the first that does not fit into the context;
        ValueError for characters that there are no tokens for."""
        texts = [
            [conversation([(prompt, answer)], number, tokens) for answer in answers]
            for number, (prompt, *answers) in enumerate(rows)
        ]
        for number, both in enumerate(texts):
            longest = max(len(text.ids) for text in both)
            if longest > context:
                raise InputError(
                    f"row {number}: prompt and answer have {longest} tokens, more than policy_kwargs['context'] = "
                    f"{context}: choose a larger one, or leave the row out"
                )
        length = max(len(text.ids) for both in texts for text in both)
        order = stream(seed, "held out").permutation(len(rows))
        count = 0 if not held_out else min(max(1, round(held_out * len(rows))), len(rows) - 1)
        laid = [[_filled(text, length) for text in both] for both in texts]
        return Pairs(
            np.array([[ids for ids, _ in both] for both in laid]),
            np.array([[learned for _, learned in both] for both in laid]),
            seed,
            np.sort(order[count:]),
            np.sort(order[:count]),
        )

    @property
    def sha256(self) -> str:
        """Of all pairs."""
        return hashlib.sha256(self.tokens.astype("<i4").tobytes() + self.mask.tobytes()).hexdigest()

    def rows(self, start: int, count: int) -> dict[str, np.ndarray]:
        """Pairs `start` to `start + count`, counted over all epochs."""
        size = len(self.learned)
        epochs = range(start // size, (start + count - 1) // size + 1)
        order = np.concatenate([stream(self.seed, "pairs", epoch).permutation(size) for epoch in epochs])
        return self._taken(self.learned[order[start - epochs[0] * size :][:count]])

    def held_out_rows(self) -> dict[str, np.ndarray] | None:
        """The first pairs that are held out; None without any."""
        return self._taken(self.held_out[:_MEASURED]) if len(self.held_out) else None

    def _taken(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"tokens": self.tokens[indices], "mask": self.mask[indices]}


def _filled(text: Text, length: int) -> tuple[np.ndarray, np.ndarray]:
    missing = length - len(text.ids)
    return np.pad(text.ids, (0, missing), constant_values=PAD), np.pad(text.learned, (0, missing))
