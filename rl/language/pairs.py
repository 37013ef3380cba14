"""Pairs of answers to a prompt, of which the first is preferred, as rows of tokens.

This module doesn't import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ...envs import stream
from ...runtime import InputError
from .packing import Text, Texts, conversation
from .tokens import PAD, Tokens

_MEASURED = 256
"""Pairs that are held out, at most: what is measured after each iteration."""


@dataclass(frozen=True)
class Pairs:
    """Pairs in an order of their own in each epoch."""

    texts: Texts
    """In a file: the chosen answer after its prompt, then the rejected one, pair by pair."""
    seed: int
    learned: np.ndarray
    """Indices of the pairs to learn from."""
    held_out: np.ndarray
    """Of the others."""
    _orders: dict[int, np.ndarray] = field(default_factory=dict)
    """Of the epochs last asked for."""

    @staticmethod
    def of(
        rows: Iterable[tuple[str, str, str]], tokens: Tokens, context: int, seed: int, held_out: float
    ) -> Pairs | None:
        """Rows of prompt, chosen and rejected answer, read one by one; None if there are none. InputError names the
        first that does not fit into the context; ValueError for characters that there are no tokens for."""
        texts = Texts(_fitting(rows, tokens, context))
        size = len(texts) // 2
        if not size:
            return None
        order = stream(seed, "held out").permutation(size)
        count = 0 if not held_out else min(max(1, round(held_out * size)), size - 1)
        return Pairs(texts, seed, np.sort(order[count:]), np.sort(order[:count]))

    def __len__(self) -> int:
        return len(self.texts) // 2

    @property
    def sha256(self) -> str:
        """Of all pairs: each answer's length, its tokens, and which of them are its own."""
        digest = hashlib.sha256()
        for number in range(len(self.texts)):
            text = self.texts[number]
            digest.update(len(text.ids).to_bytes(8, "little") + text.ids.astype("<i4").tobytes())
            digest.update(text.learned.tobytes())
        return digest.hexdigest()

    def rows(self, start: int, count: int) -> dict[str, np.ndarray]:
        """As `laid_out`, of pairs `start` to `start + count`, counted over all epochs."""
        size = len(self.learned)
        epochs = range(start // size, (start + count - 1) // size + 1)
        order = np.concatenate([self._order(epoch) for epoch in epochs])
        for epoch in [epoch for epoch in self._orders if epoch < epochs[-1]]:
            del self._orders[epoch]
        return self.laid_out(self.learned[order[start - epochs[0] * size :][:count]])

    def held_out_rows(self) -> dict[str, np.ndarray] | None:
        """As `laid_out`, of the first pairs that are held out; None without any."""
        return self.laid_out(self.held_out[:_MEASURED]) if len(self.held_out) else None

    def laid_out(self, pairs: Iterable[int]) -> dict[str, np.ndarray]:
        """Columns of N pairs: `tokens` [N, 2, T] int32, chosen and rejected answer after their prompt, filled up with
        PAD to the longest of all pairs; `mask` [N, 2, T] bool, the answers' own tokens, END included."""
        numbers = [2 * int(pair) + which for pair in pairs for which in (0, 1)]
        shape = len(numbers), int(self.texts.lengths.max())
        tokens, mask = np.full(shape, PAD, np.int32), np.zeros(shape, np.bool_)
        for row, text in enumerate(self.texts[number] for number in numbers):
            tokens[row, : len(text.ids)], mask[row, : len(text.ids)] = text.ids, text.learned
        return {"tokens": tokens.reshape(-1, 2, shape[1]), "mask": mask.reshape(-1, 2, shape[1])}

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders[epoch] = stream(self.seed, "pairs", epoch).permutation(len(self.learned))
        return self._orders[epoch]


def _fitting(rows: Iterable[tuple[str, str, str]], tokens: Tokens, context: int) -> Iterator[Text]:
    """Both texts of each row."""
    for number, (prompt, *answers) in enumerate(rows):
        both = [conversation([(prompt, answer)], number, tokens) for answer in answers]
        longest = max(len(text.ids) for text in both)
        if longest > context:
            raise InputError(
                f"row {number}: prompt and answer have {longest} tokens, more than policy_kwargs['context'] = "
                f"{context}: choose a larger one, or leave the row out"
            )
        yield from both
