"""Which shapes of a forward pass give a row the same bits, on this machine.

A product of matrices may add in an order that depends on its shape, so a row's last bits are a matter of how many rows
are read with it. But not for all shapes: MKL computes one, two and three rows otherwise than more, and 4, 8, 16 … alike
(with 16 to 512 columns, measured). Which do is asked, not assumed: each shape is tried with the model's own weights
beside the one that decides, and used only if all that comes out is the same, to the last bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .attention import TILE
from .cache import Cache
from .transformer import LanguageModel


@dataclass(frozen=True)
class Agreement:
    """Shapes of which one may stand for another."""

    answers: tuple[int, ...]
    """Rows of a pass over answers, the fewest first; the most are all places, which decide."""
    prompts: dict[int, tuple[int, ...]]
    """Length of a chunk of prompts → how many are read together, the fewest first; one alone decides."""
    widths: tuple[int, ...]
    """Places of the cache in the last block of attention, the fewest first; a whole block decides."""

    def rows(self, wanted: int) -> int:
        """Rows of a pass over so many places."""
        return next(rows for rows in self.answers if rows >= wanted)

    def prompts_together(self, length: int, most: int) -> int:
        """How many of at most so many prompts are read in one pass, a chunk of `length` each."""
        return max(rows for rows in self.prompts[length] if rows <= max(1, most))

    def reach(self, places: int) -> int:
        """Places of the cache that a pass looks at, for those who have at most so many."""
        block = self.widths[-1]
        whole = (places - 1) // block * block
        return whole + next(width for width in self.widths if width >= places - whole)


def agreement(model: LanguageModel, cache: Cache, chunks: Sequence[int], tokens: int) -> Agreement:
    """What agrees for passes over the rows of `cache`, whose content is lost, and for chunks of prompts of these
    lengths, at most so many `tokens` in a pass. A process finds it out once for all weights of a network. Call under
    `torch.inference_mode`."""
    places = cache.rows
    if model not in _NETWORKS:
        _NETWORKS[model] = hashlib.sha256(json.dumps(model.spec.to_json()).encode()).hexdigest()
    key = _NETWORKS[model], places, torch.get_num_threads(), str(model.flat.device)
    if key not in _KNOWN:
        _KNOWN[key] = _Trial(model, cache).find(places, chunks, tokens)
    return _KNOWN[key]


_KNOWN: dict[tuple[object, ...], Agreement] = {}
_NETWORKS: WeakKeyDictionary[LanguageModel, str] = WeakKeyDictionary()
"""A digest of what each model was made from, which a tokenizer of megabytes belongs to."""


class _Trial:
    """Passes of different shapes over the same rows."""

    def __init__(self, model: LanguageModel, cache: Cache) -> None:
        self._model, self._cache = model, cache
        self._block = min(model.block, cache.capacity)
        cache.fill()  # as if rows had read whole contexts: zeros add alike in any order

    def find(self, places: int, chunks: Sequence[int], tokens: int) -> Agreement:
        """Try them."""
        chunks = [length for length in chunks if length <= self._model.context]
        whole = self._states(places, 1, self._block)
        logits = self._model.predict(whole)
        answers = tuple(
            rows
            for rows in _powers(places)
            if torch.equal(self._states(rows, 1, self._block), whole[:rows])
            and torch.equal(self._model.predict(whole[:rows]), logits[:rows])
        )
        prompts = {}
        for length in chunks:
            most = min(places, max(1, tokens // length))
            alone = torch.cat([self._states(1, length, self._block, first=row) for row in range(most)])
            more = [rows for rows in (*_powers(most), most) if rows > 1]
            same = [rows for rows in more if torch.equal(self._states(rows, length, self._block), alone[:rows])]
            prompts[length] = (1, *same)
        narrow = (TILE * power for power in _powers(-(-self._block // TILE)))
        widths = tuple(width for width in narrow if self._as_a_block(width, (*answers, places)[0], chunks))
        return Agreement((*answers, places), prompts, (*widths, self._block))

    def _as_a_block(self, width: int, rows: int, chunks: Sequence[int]) -> bool:
        """Whether those who have so many tokens find the same where no more is looked at."""
        passes = ((rows, 1), *((1, length) for length in chunks if length <= width))
        return all(
            torch.equal(self._states(*shape, width, end=width), self._states(*shape, self._block, end=width))
            for shape in passes
        )

    def _states(self, rows: int, length: int, reach: int, *, end: int | None = None, first: int = 0) -> Tensor:
        """After a pass over rows from the `first` one on, which read as many tokens, others in each row, up to `end`
        (None: as far as a block, or a context, goes)."""
        device = self._model.flat.device
        end = min(self._block, self._model.context) if end is None else end
        numbers = torch.arange(first * 1009, (first + rows) * 1009, 1009)[:, None] + torch.arange(length) * 31
        begins, last = torch.full((rows,), end - length, device=device), torch.full((rows,), length - 1, device=device)
        tokens = (numbers % self._model.tokens.size).to(device)
        return self._model.extend(self._cache.part(first, rows), tokens, begins, last, reach)


def _powers(below: int) -> Iterator[int]:
    """1, 2, 4 … that are less."""
    power = 1
    while power < below:
        yield power
        power *= 2
