"""Attention to what a cache holds, in blocks of a fixed shape, as FlashAttention has it (Dao et al., 2022, arXiv
2205.14135, section 3.1).

A row's bits depend on nothing but its own tokens and the shapes of the products, and these are the same however much
of the cache is looked at: a block in which a row sees nothing multiplies what was found by exp(0) = 1, and adds 0. One
product over all that the longest row has would be as fast, but its shape, so everybody's last bits, would be a matter
of who else is answered at the moment.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 128
"""Places of the cache that are looked at together."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor, reach: int) -> Tensor:
    """What queries [B, heads, M, head] at `positions` [B, M] find, [B, heads, M, head], among keys and values
    [B, kv_heads, capacity, head] of positions up to their own; nobody looks beyond `reach` places."""
    batch, heads, length, size = queries.shape
    kv_heads, capacity = keys.shape[1:3]
    shared = heads // kv_heads  # heads of queries with the same keys: rows of one product
    asked = (queries * size**-0.5).reshape(batch, kv_heads, shared * length, size)
    last = positions[:, None, None, :].expand(batch, 1, shared, length).reshape(batch, 1, shared * length, 1)
    largest = total = found = asked.new_zeros(())
    for start in range(0, min(reach, capacity), BLOCK):
        places = torch.arange(start, min(start + BLOCK, capacity), device=keys.device)
        scores = asked @ keys[:, :, start : start + BLOCK].transpose(-1, -2)
        scores = scores.masked_fill_(places > last, -torch.inf)
        before, largest = largest, scores.amax(-1, keepdim=True)
        if start:
            largest = torch.maximum(before, largest)
        shares = (scores - largest).exp_()
        own, said = shares.sum(-1, keepdim=True), shares @ values[:, :, start : start + BLOCK]
        if start:
            kept = (before - largest).exp()
            own, said = total * kept + own, found * kept + said
        total, found = own, said
    return (found / total).view(batch, heads, length, size)
