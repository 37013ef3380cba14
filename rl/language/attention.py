"""Attention to what a cache holds, in blocks of a fixed shape, as FlashAttention has it (Dao et al., 2022, arXiv
2205.14135, section 3.1).

A row's bits depend on nothing but its own tokens and the shapes of the products, and these are the same however much
of the cache is looked at: a block in which a row sees nothing multiplies what was found by exp(0) = 1, and adds 0. One
product over all that the longest row has would be as fast, but its shape, so everybody's last bits, would be a matter
of who else is answered at the moment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 128
"""Places of the cache that are looked at together."""


def unseen(positions: Tensor, shared: int, reach: int, capacity: int) -> list[Tensor]:
    """For each block of the first `reach` places of a cache of `capacity`, which of them the queries at `positions`
    [B, M] don't see, [B, 1, shared · M, places] bool: those after their own. `shared` heads of queries have the same
    keys, and are rows of one product."""
    batch, length = positions.shape
    last = positions[:, None, None, :].expand(batch, 1, shared, length).reshape(batch, 1, shared * length, 1)
    places = torch.arange(capacity, device=positions.device)
    return [places[start : start + BLOCK] > last for start in range(0, min(reach, capacity), BLOCK)]


def attend(queries: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """What queries [B, heads, M, head] find, [B, heads, M, head], among keys and values [B, kv_heads, capacity, head];
    `blocks` are those of `unseen`."""
    batch, heads, length, size = queries.shape
    kv_heads = keys.shape[1]
    asked = (queries * size**-0.5).reshape(batch, kv_heads, heads // kv_heads * length, size)
    largest = total = found = asked
    for index, hidden in enumerate(blocks):
        places = slice(index * BLOCK, index * BLOCK + hidden.shape[-1])
        scores = (asked @ keys[:, :, places].transpose(-1, -2)).masked_fill_(hidden, -torch.inf)
        before, largest = largest, scores.amax(-1, keepdim=True)
        if index:
            largest = torch.maximum(before, largest)
        shares = scores.sub_(largest).exp_()
        own, said = shares.sum(-1, keepdim=True), shares @ values[:, :, places]
        if index:
            kept = (before - largest).exp()
            own, said = total * kept + own, found * kept + said
        total, found = own, said
    return (found / total).view(batch, heads, length, size)
