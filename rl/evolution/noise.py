"""Perturbations of weights, as slices of one table of noise that everybody can read.

A direction is named by where it begins in the table, eight bytes whatever the size of the network: that is what tasks
are told, instead of the perturbation (Salimans et al., 2017, arXiv 1703.03864, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...envs import stream
from ..models.layout import ParameterLayout

_NORMALIZER = "normalizer."


def noise_table(seed: int, size: int) -> np.ndarray:
    """`size` standard normal float32 numbers, from the stream ("noise table")."""
    return stream(seed, "noise table").standard_normal(size, dtype=np.float32)


@dataclass(frozen=True)
class SearchSpace:
    """Which of the flat weights are searched: all behind the statistics of observations, with which they begin."""

    size: int
    """Numbers in the flat weights."""
    first: int
    """The first that is searched."""

    @staticmethod
    def of(layout: ParameterLayout) -> SearchSpace:
        """That of a model."""
        statistics = [name for name in layout.shapes if name.startswith(_NORMALIZER)]
        searched = [name for name in layout.shapes if name not in statistics]
        return SearchSpace(layout.size, layout.offsets[searched[0]])

    @property
    def width(self) -> int:
        """Numbers that are searched."""
        return self.size - self.first

    def directions(self, seed: int, generation: int, count: int, table_size: int) -> np.ndarray:
        """Where `count` directions begin in the table, int64, from the stream ("directions", generation)."""
        return stream(seed, "directions", generation).integers(0, table_size - self.width + 1, count)

    def perturbed(self, weights: np.ndarray, noise: np.ndarray, direction: int, scale: float) -> np.ndarray:
        """New flat weights: θ + `scale` · ε, ε being the slice of the table that begins at `direction`."""
        moved = weights.copy()
        moved[self.first :] += np.float32(scale) * noise[direction : direction + self.width]
        return moved
