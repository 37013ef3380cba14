"""Texts that are packed into rows, to learn the next token of: what pre-training and supervised fine-tuning share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np

from ...runtime import InputError
from .packing import Corpus, RowOrder, Text
from .text_training import TextAlgorithm, TextConfig

logger = logging.getLogger("shoal")
_MEASURED = 64
"""Rows that are held out, at most: what is measured after each iteration."""

Config = TypeVar("Config", bound=TextConfig)


class PackedAlgorithm(TextAlgorithm[Config], Generic[Config]):
    """Texts in rows of the model's context, packed; an algorithm says what they are."""

    def encode(self, examples: Iterable[Any]) -> Iterator[Text]:
        """The texts of all examples; ValueError for characters that there are no tokens for."""
        raise NotImplementedError

    @property
    def context(self) -> int:
        """Tokens of a row."""
        return int(self.language_spec.architecture.context)

    @cached_property
    def corpus(self) -> Corpus:
        """All texts that fit into a row, read one by one; InputError if none does. How many do not is logged."""
        lengths: list[int] = []
        corpus = Corpus.of(self._fitting(lengths), self.context, self.run.seed)
        if not lengths:
            raise self.nothing_there()
        longest = max(lengths)
        if not len(corpus):
            raise InputError(
                f"all texts have more tokens ({min(lengths)} to {longest}) than policy_kwargs['context'] = "
                f"{self.context}: choose a larger one"
            )
        if len(corpus) < len(lengths):
            logger.warning(
                "%d of %d texts are left out: they have up to %d tokens, more than policy_kwargs['context'] = %d",
                len(lengths) - len(corpus),
                len(lengths),
                longest,
                self.context,
            )
        return corpus

    def _fitting(self, lengths: list[int]) -> Iterator[Text]:
        """The texts that fit into a row; `lengths` gets those of all."""
        for text in self.encode(self.examples()):
            lengths.append(len(text.ids))
            if len(text.ids) <= self.context:
                yield text

    @cached_property
    def _divided(self) -> tuple[Corpus, Corpus]:
        return self.corpus.divide(self.config.held_out)

    @cached_property
    def _order(self) -> RowOrder:
        return RowOrder(self._divided[0])

    def rows(self, start: int, count: int) -> dict[str, np.ndarray]:
        """As `Corpus.laid_out`."""
        return self._divided[0].laid_out(self._order.of(start, count))

    def held_out_rows(self) -> dict[str, np.ndarray] | None:
        """As `Corpus.laid_out`, the first rows of what is held out."""
        held_out = self._divided[1]
        return held_out.laid_out(held_out.epoch(0)[:_MEASURED]) if len(held_out) else None

    def facts(self) -> dict[str, Any]:
        """Name, numbers, SHA-256 of what is learned."""
        corpus = self.corpus
        return {
            "name": self.config.dataset or self.spec.id,
            "texts": len(corpus),
            "tokens": corpus.tokens,
            "sha256": corpus.sha256,
        }
