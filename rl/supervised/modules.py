"""The network that tables are given where the user names none. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TableNetwork(nn.Module):
    """Layers on numbers that are shifted and scaled, and on categories that are embedded.

    A number that is missing is the mean, and is said to be missing by one more input; a missing category is a
    category of its own.

    Args:
        categories: how many each feature has; 0: it is a number.
        mean, std: of each feature, over the rows that are learned from.
        outputs: numbers for each row.
        net_arch: units of the hidden layers.
        embedding: numbers for each category.
        dropout: part of the hidden units that is left out in each step of training.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        categories: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        outputs: int,
        *,
        net_arch: Sequence[int] = (128, 128),
        embedding: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self._numbers = [i for i, count in enumerate(categories) if not count]
        self._categories = [i for i, count in enumerate(categories) if count]
        self.register_buffer("mean", torch.tensor([mean[i] for i in self._numbers]), persistent=False)
        self.register_buffer("std", torch.tensor([std[i] for i in self._numbers]), persistent=False)
        self.embeddings = nn.ModuleList(nn.Embedding(categories[i] + 1, embedding) for i in self._categories)
        width = 2 * len(self._numbers) + embedding * len(self._categories)
        layers: list[nn.Module] = []
        for units in net_arch:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs [B, outputs] of features [B, F], NaN where missing."""
        numbers = rows[:, self._numbers]
        missing = numbers.isnan()
        parts = [torch.where(missing, 0.0, (numbers - self.mean) / self.std), missing.to(rows.dtype)]
        for index, embedding in zip(self._categories, self.embeddings, strict=True):
            codes = rows[:, index]
            parts.append(embedding(torch.where(codes.isnan(), -1.0, codes).long() + 1))
        return self.layers(torch.cat(parts, dim=1))
