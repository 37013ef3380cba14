"""Normalization of observations, as a part of the model: what is learned is what is acted on, evaluated and served.

Mean and scale are parameters that no optimizer changes: their gradient is zero. So they lie in the flat weights, travel
with them, have their version and are saved with them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn

from ..data.moments import CLIP, normalized_leaves


class Normalizer(nn.Module):
    """(x − mean) · scale, within ±10, of each part that is a vector of numbers; before the first rollout as it is."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        leaves = {path: leaf for path, (_, leaf) in normalized_leaves(space).items()}
        self._index = {path: index for index, path in enumerate(leaves)}
        self.means, self.scales = (
            nn.ParameterList(
                nn.Parameter(torch.full((leaf.row_size,), value), requires_grad=False) for leaf in leaves.values()
            )
            for value in (0.0, 1.0)
        )

    def forward(self, rows: Tensor, path: str = "") -> Tensor:
        """Rows [B, n] of the part at `path`; of another part as they are."""
        index = self._index.get(path)
        if index is None:
            return rows
        return ((rows - self.means[index]) * self.scales[index]).clamp(-CLIP, CLIP)

    def set(self, scales: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Take over mean and scale of each part."""
        for path, (mean, scale) in scales.items():
            index = self._index[path]
            self.means[index].copy_(torch.tensor(mean))
            self.scales[index].copy_(torch.tensor(scale))
