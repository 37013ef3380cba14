"""What is kept of the tokens that rows have read: keys and values of each layer, or the tokens themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .attention import Seen, in_tiles


@dataclass(frozen=True)
class Cache:
    """Keys and values of each layer, side by side: what a step adds to both is written at once."""

    pairs: tuple[Tensor, ...]
    """[B, kv_heads, 2, capacity, size] of each layer, the larger one of both sizes."""
    sizes: tuple[tuple[int, int], ...]
    """Of a key and a value in each layer."""
    _first: Tensor
    """[B, 1, 2 · kv_heads] int64: the first place of each head's keys, then of their values; of the first layer."""
    _seen: dict[int, list[list[Seen]]] = field(default_factory=dict)
    """What `seen` gave the last time, by its reach."""

    @staticmethod
    def empty(rows: int, places: int, layers: Sequence[tuple[int, int, int]], device: torch.device) -> Cache:
        """For so many rows, of so many places at least; of each of `layers` the number of heads, and the sizes of a key
        and of a value."""
        room, heads = in_tiles(places), layers[0][0]
        first = torch.arange(0, rows * heads * 2 * room, room, device=device).view(rows, heads, 2)
        return Cache(
            tuple(
                torch.zeros((rows, heads, 2, room, max(sizes)), dtype=torch.float32, device=device)
                for heads, *sizes in layers
            ),
            tuple((key, value) for _, key, value in layers),
            first.transpose(1, 2).reshape(rows, 1, -1),
        )

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.pairs[0].shape[0]

    @property
    def capacity(self) -> int:
        """Places of each row."""
        return self.pairs[0].shape[3]

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each, [B, kv_heads, capacity, size]."""
        return [
            (pair[:, :, 0, :, :key], pair[:, :, 1, :, :value])
            for pair, (key, value) in zip(self.pairs, self.sizes, strict=True)
        ]

    def seen(self, reach: int) -> list[list[Seen]]:
        """The first `reach` places of each layer, in blocks; the next pass mostly looks at the same."""
        if reach not in self._seen:
            self._seen.clear()
            both = [(keys.flatten(0, 1), values.flatten(0, 1)) for keys, values in self.layers()]
            self._seen[reach] = [Seen.blocks(*each, reach) for each in both]
        return self._seen[reach]

    def part(self, first: int, rows: int) -> Cache:
        """So many rows of it, from the `first` one on: the same memory."""
        return Cache(tuple(pair[first : first + rows] for pair in self.pairs), self.sizes, self._first[:rows])

    def begin_with(self, other: Cache) -> None:
        """Take over what a smaller one holds."""
        for pair, old in zip(self.pairs, other.pairs, strict=True):
            pair[:, :, :, : old.shape[3]] = old

    def fill(self) -> None:
        """Write other numbers into each place, as if all rows had read something."""
        for pair in self.pairs:
            pair.copy_(torch.arange(pair.numel(), device=pair.device).view(pair.shape).sin())

    def places(self, positions: Tensor) -> Tensor:
        """Where the keys, then the values, of tokens at `positions` [..., B, M] lie in a layer, [..., B · M · 2 ·
        kv_heads] int64; of a cache of which all layers are alike."""
        return (self._first + positions[..., None]).flatten(-3)

    def write(self, layer: int, places: Tensor, vectors: Tensor) -> None:
        """Keep the keys, then the values, of tokens, `vectors` [B · M, 2 · kv_heads, size], at those places."""
        size = vectors.shape[-1]
        self.pairs[layer].view(-1, size).index_copy_(0, places, vectors.reshape(-1, size))


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
