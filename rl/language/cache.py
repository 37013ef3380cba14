"""What is kept of the tokens that rows have read: keys and values of each layer, or the tokens themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import in_tiles


@dataclass(frozen=True)
class Cache:
    """Keys and values of each layer, [B, kv_heads, capacity, head] each."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @staticmethod
    def empty(rows: int, places: int, layers: Sequence[tuple[int, int, int]], device: torch.device) -> Cache:
        """For so many rows, of so many places at least; of each of `layers` the number of heads, and the sizes of a key
        and of a value."""
        room = in_tiles(places)
        return Cache(
            tuple(torch.zeros((rows, heads, room, size), device=device) for heads, size, _ in layers),
            tuple(torch.zeros((rows, heads, room, size), device=device) for heads, _, size in layers),
        )

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        """Places of each row."""
        return self.keys[0].shape[2]

    def part(self, first: int, rows: int) -> Cache:
        """So many rows of it, from the `first` one on: the same memory."""
        return Cache(*(tuple(kept[first : first + rows] for kept in each) for each in (self.keys, self.values)))

    def begin_with(self, other: Cache) -> None:
        """Take over what a smaller one holds."""
        for kept, old in zip((*self.keys, *self.values), (*other.keys, *other.values), strict=True):
            kept[:, :, : old.shape[2]] = old

    def fill(self) -> None:
        """Write other numbers into each place, as if all rows had read something."""
        for kept in (*self.keys, *self.values):
            kept.copy_(torch.arange(kept.numel(), device=kept.device).view(kept.shape).sin())

    def places(self, positions: Tensor) -> Tensor:
        """Where each head's vectors of tokens at `positions` [B, M] lie in a layer, [B · kv_heads · M] int64; of a
        cache of which all layers are alike."""
        rows, heads, capacity, _ = self.keys[0].shape
        first = torch.arange(0, rows * heads * capacity, capacity, device=positions.device).view(rows, heads, 1)
        return (first + positions[:, None]).view(-1)

    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Keep `keys` and `values` [B, kv_heads, M, head] at those places."""
        for kept, new in ((self.keys[layer], keys), (self.values[layer], values)):
            kept.view(-1, kept.shape[-1]).index_copy_(0, places, new.reshape(-1, kept.shape[-1]))


@dataclass(frozen=True)
class TokenCache:
    """The tokens themselves, [B, capacity] int64: of a model that reads each row anew for each token."""

    tokens: Tensor

    @staticmethod
    def empty(rows: int, places: int, device: torch.device) -> TokenCache:
        """As `Cache.empty`."""
        return TokenCache(torch.zeros((rows, in_tiles(places)), dtype=torch.long, device=device))

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.tokens.shape[0]

    @property
    def capacity(self) -> int:
        """Places of each row."""
        return self.tokens.shape[1]

    def part(self, first: int, rows: int) -> TokenCache:
        """As `Cache.part`."""
        return TokenCache(self.tokens[first : first + rows])

    def begin_with(self, other: TokenCache) -> None:
        """As `Cache.begin_with`."""
        self.tokens[:, : other.capacity] = other.tokens

    def fill(self) -> None:
        """As `Cache.fill`."""
        self.tokens.copy_(torch.arange(self.tokens.numel(), device=self.tokens.device).view(self.tokens.shape) % 251)
