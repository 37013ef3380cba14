"""A decoder-only transformer in today's usual form: RMSNorm before each part, rotary positions (Su et al., 2021, arXiv
2104.09864), grouped heads (Ainslie et al., 2023, 2305.13245), SwiGLU (Shazeer, 2020, 2002.05202), tied embeddings.

    logits of whole texts         `forward`      what is learned from
    logits of what comes next     `extend`       what is sampled from: keys and values of earlier tokens are kept

Rows are filled up on the right, where a causal model never looks: a row's numbers depend on its own tokens only.

With `policy_kwargs["lora"]` all of this is frozen, and what is learned are products of two narrow matrices that are
added to some of its layers (Hu et al., 2021, arXiv 2106.09685); see `adapters`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

from ..models.architecture import LanguageArchitecture
from ..models.flat_module import FlatModule
from ..models.spec import ModelSpec
from .adapters import adapted, add_adapters
from .attention import BLOCK
from .cache import Cache
from .inference import NEVER, Inference
from .tokens import BEGIN, END, read_tokenizer, tokens_between

_ROTARY_BASE = 10_000.0


class _Block(nn.Module):
    """Attention, then a feed-forward network, each added to what comes in."""

    def __init__(self, chosen: LanguageArchitecture) -> None:
        super().__init__()
        width, self.heads = chosen.width, chosen.heads
        self.kv_heads, self.head = chosen.kv_heads or chosen.heads, width // chosen.heads
        hidden = chosen.hidden or math.ceil(width * 8 / 3 / 16) * 16
        self.attention_norm, self.feed_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, (self.heads + 2 * self.kv_heads) * self.head, bias=False)
        self.out = nn.Linear(self.heads * self.head, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        for layer in (self.qkv, self.gate_up):
            nn.init.normal_(layer.weight, std=width**-0.5)
        for layer in (self.out, self.down):  # the sum over all layers stays of the size of one
            nn.init.normal_(layer.weight, std=(2 * chosen.layers * layer.in_features) ** -0.5)

    def forward(self, rows: Tensor, rotary: tuple[Tensor, Tensor], seen: Tensor | None) -> Tensor:
        """What goes on of rows [B, T, width]; each sees those that `seen` says; None: all before it."""
        queries, keys, values = self.project(rows, rotary)
        keys, values = self.spread(keys), self.spread(values)
        attended = scaled_dot_product_attention(queries, keys, values, attn_mask=seen, is_causal=seen is None)
        return self.combine(rows, attended)

    def project(self, rows: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, heads, T, head], keys and values [B, kv_heads, T, head] of rows [B, T, width]."""
        batch, length, _ = rows.shape
        joint = adapted(self.qkv, _normed(self.attention_norm, rows)).view(batch, length, -1, self.head)
        turned, values = joint.split((self.heads + self.kv_heads, self.kv_heads), 2)
        queries, keys = _rotate(turned, rotary).split((self.heads, self.kv_heads), 2)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    def combine(self, rows: Tensor, attended: Tensor) -> Tensor:
        """What goes on, [B, T, width], from what came in and what attention found [B, heads, T, head]."""
        rows = rows + adapted(self.out, attended.transpose(1, 2).flatten(2))
        gate, up = adapted(self.gate_up, _normed(self.feed_norm, rows)).chunk(2, -1)
        return rows + adapted(self.down, silu(gate) * up)

    def spread(self, keys: Tensor) -> Tensor:
        """Keys or values for each head of queries."""
        return keys if self.kv_heads == self.heads else keys.repeat_interleave(self.heads // self.kv_heads, 1)


class LanguageModel(FlatModule):
    """Predicts tokens from those before them. `tokens` encodes and decodes."""

    memory, encoder = None, None
    block = BLOCK
    """Places of the cache that attention looks at together."""
    keeps_activations = True
    """Whether the activations of each block are kept for the gradient; else they are computed again."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        chosen: LanguageArchitecture = spec.architecture
        self.spec, self.context, self.state_size = spec, chosen.context, chosen.width
        self.tokens = tokens_between(read_tokenizer(chosen.tokenizer), spec.observation_space, spec.action_space)
        self.embedding = nn.Embedding(self.tokens.size, chosen.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(_Block(chosen) for _ in range(chosen.layers))
        self.norm = nn.RMSNorm(chosen.width)
        head = chosen.width // chosen.heads
        frequencies = _ROTARY_BASE ** (-torch.arange(0, head, 2).float() / head)
        angles = torch.arange(chosen.context + 1).float()[:, None] * frequencies
        # No buffers: they follow from the spec. [context + 1, 1, head] each, for both halves of a vector (`_rotate`).
        self.rotary = angles.cos().repeat(1, 2)[:, None], torch.cat([-angles.sin(), angles.sin()], -1)[:, None]
        if chosen.lora:
            self.trained = add_adapters(self, self.blocks, chosen.lora)
        if chosen.value_head:
            self.value = nn.Linear(chosen.width, 1)
            nn.init.zeros_(self.value.weight)
            nn.init.zeros_(self.value.bias)
            self.trained = self.trained and (*self.trained, "value")

    def forward(self, tokens: Tensor, packed: bool = False) -> Tensor:
        """Logits [B, T, V] of the token that follows each of `tokens` [B, T] int64 and those before it. Where rows are
        `packed`, a text begins with each BEGIN: it sees nothing of those before, and its positions begin at 0."""
        return self._logits(self._read(tokens, packed))

    def evaluate(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V] as `forward`, and values [B, T]: what return is expected after each token and those before
        it. Of a model with a value head."""
        rows = self._read(tokens, False)
        return self._logits(rows), self.value(_normed(self.norm, rows))[..., 0]

    def _read(self, tokens: Tensor, packed: bool) -> Tensor:
        rows = embedding(tokens, self.embedding.weight)
        positions, seen = torch.arange(tokens.shape[1], device=tokens.device), None
        if packed:
            positions, seen = packed_places(tokens)
        rotary = self._rotary_at(positions)
        for block in self._blocks():
            if self.keeps_activations or not torch.is_grad_enabled():
                rows = block(rows, rotary, seen)
            else:
                rows = checkpoint(block, rows, rotary, seen, use_reentrant=False)
        return rows

    def cache(self, rows: int, places: int | None = None) -> Cache:
        """An empty cache for so many rows of so many tokens, and a place beyond, which is nobody's: the one after the
        last of the context, or the cache's last. None: whole contexts."""
        layers = [(block.kv_heads, block.head, block.head) for block in self._blocks()]
        return Cache.empty(rows, (places or self.context) + 1, layers, self.flat.device)

    def extend(self, cache: Cache, tokens: Tensor, begins: Tensor, places: Tensor, reach: int) -> Tensor:
        """Read `tokens` [B, M] int64 that follow the `begins` [B] int64 tokens in the cache, and return the states
        [B, state_size] after those at `places` [B] int64, of which `predict` makes logits. `reach` is a number of
        places of the cache beyond which no row of interest has tokens, as `in_tiles` rounds it up.

        A row's bits depend on nothing but its own tokens and M, and on B as far as products do: see `Agreement`.

        What a row has beyond its own tokens is written beyond them, where nothing looks before it is overwritten; what
        would lie beyond cache or context, into the place which is nobody's.
        """
        return self._inference.extend(cache, tokens, begins, places, reach)

    def ahead(self, cache: Cache, begins: Tensor, steps: int) -> Iterator[Any]:
        """What `follow` takes in each of `steps` passes that read a token of each row, of which the first follows
        `begins` [B] int64 tokens in the cache; as `extend` would read them, with the reach of the longest row."""
        return self._inference.ahead(cache, begins, steps)

    def follow(self, tokens: Tensor, places: Any) -> Tensor:
        """Read the next token of each row, [B] int64, where `ahead` says, and return the states after them."""
        return self._inference.follow(tokens, places)

    def predict(self, states: Tensor) -> Tensor:
        """Logits [B, V] of the token that follows, of states as `extend` and `follow` give them."""
        return self._inference.predict(states)

    @functools.cached_property
    def _inference(self) -> Inference:
        return Inference(self)  # once parameters are where they stay

    def _blocks(self) -> list[Any]:
        return list(self.blocks)

    def _rotary_at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = (table.to(positions.device)[positions] for table in self.rotary)
        return cosines, sines

    def _logits(self, rows: Tensor) -> Tensor:
        logits = linear(_normed(self.norm, rows), self.embedding.weight)
        logits[..., :END] = NEVER
        return logits


def _normed(norm: Any, rows: Tensor) -> Tensor:
    return rms_norm(rows, norm.normalized_shape, norm.weight)  # without what a call of a module costs


def _rotate(vectors: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Vectors [B, T, heads, head], each pair of halves turned by its position's angles."""
    cosines, sines = rotary
    first, second = vectors.chunk(2, -1)
    return torch.addcmul(vectors * cosines, torch.cat([second, first], -1), sines)


def packed_places(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows [B, T] in which each BEGIN begins another text: the positions [B, T] of tokens in their texts, and which
    ones each sees, [B, 1, T, T] bool: itself and those before it in its text."""
    begins = tokens == BEGIN
    texts, places = begins.cumsum(-1), torch.arange(tokens.shape[1], device=tokens.device)
    positions = places - torch.where(begins, places, 0).cummax(-1).values
    seen = (texts[:, :, None] == texts[:, None, :]) & (places[:, None] >= places)
    return positions, seen[:, None]
