"""Attention to what a cache holds, in blocks of a fixed shape, as FlashAttention has it (Dao et al., 2022, arXiv
2205.14135, section 3.1).

A row's bits depend on nothing but its own tokens and the shapes of the products, however much of the cache is looked
at. A block in which a row sees nothing multiplies what was found by exp(0) = 1, and adds 0. The last block is as wide
as it must be, in tiles: what a row does not see has a share of exactly 0 there, at the end of the sums. One product
over all that the longest row has would be no faster, but its shape, so everybody's last bits, would be a matter of who
else is answered at the moment.

Written out in products of matrices, since `scaled_dot_product_attention` for one query in each row took ten times as
long as these (32 rows, 4 heads, 64 places: 217 µs against 31).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 128
"""Places of the cache that are looked at together."""
TILE = 32
"""Their number in the last block is a multiple of this: with fewer, products add in other orders."""
_NEVER = -1e9
"""Added to the score of what is not seen; finite, so that a block in which nothing is seen has a softmax, too."""


def in_tiles(places: int, tile: int = TILE) -> int:
    """So many places, rounded up to whole tiles."""
    return -(-places // tile) * tile


def hidden_by(positions: Tensor, reach: int) -> Tensor:
    """What is added to scores in the first `reach` places of a cache, [B, 1, M, reach], since queries at `positions`
    [B, M] see those up to their own only."""
    return (torch.arange(reach, device=positions.device) > positions[:, None, :, None]) * _NEVER


def in_blocks(hidden: Tensor) -> Sequence[Tensor]:
    """What `hidden_by` says, of each block."""
    return (hidden,) if hidden.shape[-1] <= BLOCK else hidden.split(BLOCK, -1)


class Seen(NamedTuple):
    """A block of the cache of a layer."""

    keys: Tensor
    """[B · kv_heads, head, places]."""
    values: Tensor
    """[B · kv_heads, places, head]."""

    @staticmethod
    def blocks(keys: Tensor, values: Tensor, reach: int) -> list[Seen]:
        """The first `reach` places of keys and values [B · kv_heads, capacity, head]."""
        ends = ((first, min(first + BLOCK, reach)) for first in range(0, reach, BLOCK))
        return [Seen(keys[:, first:end].transpose(1, 2), values[:, first:end]) for first, end in ends]


def attend(asked: Tensor, hidden: Sequence[Tensor], seen: Sequence[Seen]) -> Tensor:
    """What queries find, which are scaled already, in each block that is `seen` but for what is `hidden`, as
    `hidden_by` says it. Queries and what they find are [B · kv_heads, heads / kv_heads · M, head]: heads of queries
    that have the same keys are rows of one product."""
    found = weight = asked
    for index, (block, unseen) in enumerate(zip(seen, hidden, strict=True)):
        scores = torch.bmm(asked, block.keys)
        scores.view(len(unseen), -1, *unseen.shape[2:]).add_(unseen)
        shares = scores.softmax(-1)
        said = torch.bmm(shares, block.values)
        if len(seen) == 1:
            return said
        # The logarithm of the block's sum of exp(score): the largest share is that of the largest score.
        own = scores.amax(-1, keepdim=True) - shares.amax(-1, keepdim=True).log()
        if index == 0:
            found, weight = said, own
            continue
        before, weight = weight, torch.logaddexp(weight, own)
        found = found * (before - weight).exp() + said * (own - weight).exp()
    return found
