"""Encoded observations, as algorithms hand them from one method of a model to the next without looking inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..data.tree import tree_map

Parts: TypeAlias = Mapping[str, Tensor]
"""Parts of a nested observation by where they lie, such as "camera" or "arm/angles"; [B, …] each."""


@dataclass(frozen=True)
class Recalled:
    """What a memory made of the observations of one step."""

    features: Tensor
    """[B, F], the memory's output."""
    mask: Tensor | None
    """[B, K] bool, which outputs are allowed; None: all."""


@dataclass(frozen=True)
class Sequences:
    """Steps that a memory is to be unrolled over: S sequences of L steps, padded at their ends."""

    inputs: Tensor | Parts
    """Encoded observations, [S · L, …]."""
    memory: Any
    """Tree of tensors [S, …]: the memory before the first step of each."""
    starts: Tensor
    """[S, L] bool: where an episode begins, so that nothing before is remembered."""
    valid: Tensor
    """[M] int64: rows of [S · L] that are steps, not padding. What comes out has these M rows."""

    def take(self, chosen: Tensor) -> tuple[Sequences, Tensor]:
        """The sequences `chosen` [K], and where their steps are in the M rows, [m] int64."""
        length = self.starts.shape[1]
        at = (chosen.unsqueeze(1) * length + torch.arange(length, device=chosen.device)).reshape(-1)
        row = torch.full((self.starts.numel(),), -1, device=chosen.device)
        row[self.valid] = torch.arange(len(self.valid), device=chosen.device)
        rows = row[at]
        inputs = tree_map(lambda leaf: leaf[at], self.inputs)
        memory = tree_map(lambda leaf: leaf[chosen], self.memory)
        return Sequences(inputs, memory, self.starts[chosen], (rows >= 0).nonzero().squeeze(-1)), rows[rows >= 0]


Rows: TypeAlias = Tensor | Parts | Recalled | Sequences
"""One tensor [B, …] for an observation without parts."""
