"""The passes of `LanguageModel` that sampling makes: the layers of `forward`, without gradients and with a cache.

A pass over one token of each row is some sixty small operations, most of which take as long to call as to compute. So
all tokens are rows of one matrix, weights lie as products take them, what is only turned or added is changed where it
lies, and where tokens stand is worked out for many passes at once (`ahead`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

from .attention import Seen, attend, hidden_by, in_blocks, in_tiles
from .cache import Cache
from .tokens import END

NEVER = -1e9
"""Logit of the tokens that nobody says; finite, so that the entropy is."""


class Places(NamedTuple):
    """Where the N = B · M tokens of a pass stand, of B rows."""

    cosines: Tensor
    """[N, 1, head], as `sines`: the angles by which positions turn."""
    sines: Tensor
    at: Tensor
    """Where their keys and values are kept: see `Cache.places`."""
    hidden: Sequence[Tensor]
    """What is added to scores in each block of the cache, [B, 1, M, places]."""
    cache: Cache
    seen: Sequence[Sequence[Seen]]
    """Of each layer, these blocks."""


class Inference:
    """Passes of a model; it reads weights where they lie, whatever is written there. Call without gradients."""

    def __init__(self, model: Any) -> None:
        self._context, device = model.context, model.flat.device
        self._cosines, self._sines = (table.to(device) for table in model.rotary)
        self._embedding = model.embedding.weight.detach()
        self._normed, self._likely = _norm(model.norm), self._embedding.t()
        self._layers = [_Layer(block) for block in model.blocks]

    def extend(self, cache: Cache, tokens: Tensor, begins: Tensor, places: Tensor, reach: int) -> Tensor:
        """See `LanguageModel.extend`."""
        rows, length = tokens.shape
        positions = begins[:, None]
        if length > 1:
            positions = (positions + torch.arange(length, device=tokens.device)).clamp(max=self._last(cache))
        flat = positions.reshape(-1)
        rotary = self._cosines.index_select(0, flat), self._sines.index_select(0, flat)
        hidden = in_blocks(hidden_by(positions, reach))
        states = self.follow(
            tokens.reshape(-1), Places(*rotary, cache.places(positions), hidden, cache, cache.seen(reach))
        )
        if length == 1:
            return states
        return states.view(rows, length, -1)[torch.arange(rows, device=tokens.device), places]

    def ahead(self, cache: Cache, begins: Tensor, steps: int) -> Iterator[Places]:
        """See `LanguageModel.ahead`: as many together as look at the same tiles of the cache."""
        longest, step = int(begins.max()), 0
        while step < steps:
            reach = in_tiles(min(longest + step, self._context) + 1)
            count = min(steps - step, max(1, reach - longest - step))
            own = begins + step
            positions = (own + torch.arange(count, device=begins.device)[:, None]).clamp(max=self._last(cache))
            # Rows see one place more in each pass: the same mask, looked at a place further on the left.
            mask, seen = hidden_by(own[:, None] + count - 1, reach + count - 1), cache.seen(reach)
            rotary = self._cosines[positions], self._sines[positions], cache.places(positions[:, :, None])
            for place, each in enumerate(zip(*rotary, strict=True)):
                hidden = in_blocks(mask.narrow(-1, count - 1 - place, reach))
                yield Places(*each, hidden, cache, seen)
            step += count

    def follow(self, tokens: Tensor, places: Places) -> Tensor:
        """Read `tokens` [N] int64 at their places, and return the states [N, width] after them."""
        rows = self._embedding.index_select(0, tokens)
        for index, layer in enumerate(self._layers):
            rows = layer(rows, places, index)
        return rows

    def predict(self, states: Tensor) -> Tensor:
        """See `LanguageModel.predict`."""
        logits = torch.mm(self._normed(states), self._likely)
        logits[:, :END] = NEVER
        return logits

    def _last(self, cache: Cache) -> int:
        """The place which is nobody's."""
        return min(self._context, cache.capacity - 1)


class _Layer:
    """A block, on rows [N, width] that it may change."""

    def __init__(self, block: Any) -> None:
        self._heads, self._kv_heads, self._head = block.heads, block.kv_heads, block.head
        self._turned = block.heads + block.kv_heads
        device = block.qkv.weight.device
        halves = torch.arange(self._turned * block.head, device=device).view(-1, 2, block.head // 2)
        self._swapped, self._scale = halves.flip(1).reshape(-1), torch.tensor(block.head**-0.5, device=device)
        self._attention_normed, self._feed_normed = _norm(block.attention_norm), _norm(block.feed_norm)
        self._qkv, self._out = _product(block.qkv), _product(block.out)
        self._gate_up, self._down = _product(block.gate_up), _product(block.down)

    def __call__(self, rows: Tensor, places: Places, index: int) -> Tensor:
        """What goes on of rows."""
        joint = self._qkv(self._attention_normed(rows))
        vectors = joint.view(len(rows), -1, self._head)
        swapped = joint.index_select(1, self._swapped).view(len(rows), -1, self._head)
        vectors[:, : self._turned].mul_(places.cosines).addcmul_(swapped, places.sines)
        places.cache.write(index, places.at, vectors[:, self._heads :])
        asked = torch.mul(vectors[:, : self._heads], self._scale)
        found = self._among_rows(attend(self._by_rows(asked, places), places.hidden, places.seen[index]), places)
        rows.add_(self._out(found))
        gate, up = self._gate_up(self._feed_normed(rows)).chunk(2, -1)
        return rows.add_(self._down(silu(gate).mul_(up)))

    def _by_rows(self, asked: Tensor, places: Places) -> Tensor:
        """Queries [N, heads, head] as `attend` takes them."""
        batch, _, length, _ = places.hidden[0].shape
        if length > 1:
            asked = asked.view(batch, length, self._heads, self._head).transpose(1, 2)
        return asked.reshape(batch * self._kv_heads, -1, self._head)

    def _among_rows(self, found: Tensor, places: Places) -> Tensor:
        """What `attend` finds, as rows [N, heads · head]."""
        batch, _, length, _ = places.hidden[0].shape
        if length > 1:
            found = found.view(batch, self._heads, length, self._head).transpose(1, 2)
        return found.reshape(batch * length, -1)


def _norm(norm: Any) -> Callable[[Tensor], Tensor]:
    """RMSNorm in as few operations as it takes: `rms_norm`, which has the same bits, turns numbers into tensors."""
    weight = norm.weight.detach()
    size, least = (weight.new_tensor(number) for number in (len(weight), norm.eps or torch.finfo(weight.dtype).eps))

    def normed(rows: Tensor) -> Tensor:
        inverse = torch.addcdiv(least, (rows * rows).sum(-1, keepdim=True), size).rsqrt_()
        return torch.mul(rows, inverse).mul_(weight)

    return normed


def _product(layer: Any) -> Callable[[Tensor], Tensor]:
    """What `adapted` makes of rows [N, inputs]."""
    weight, adapter = layer.weight.detach().t(), vars(layer).get("adapter")
    if adapter is None:
        return lambda rows: torch.mm(rows, weight)
    return lambda rows: torch.mm(rows, weight).add_(adapter(rows))
