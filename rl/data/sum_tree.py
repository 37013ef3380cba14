"""A sum tree: weights that can be changed, and drawn from in proportion, in logarithmic time."""

from __future__ import annotations

import numpy as np


class SumTree:
    """`size` weights ≥ 0, float64, all 0 at first. Level 0 holds their sum, the last level the weights themselves.

    Every node is the sum of its two children, always added left + right: so its bits depend on the weights alone, not
    on the order in which they were set.
    """

    def __init__(self, size: int) -> None:
        depth = max(1, size - 1).bit_length()
        self._levels = [np.zeros(2**level) for level in range(depth + 1)]
        self.size = size

    @staticmethod
    def nbytes_of(size: int) -> int:
        """Bytes that a tree of so many weights takes."""
        return 8 * (2 ** (max(1, size - 1).bit_length() + 1) - 1)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.nbytes_of(self.size)

    @property
    def weights(self) -> np.ndarray:
        """float64 [size]; a view."""
        return self._levels[-1][: self.size]

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._levels[0][0])

    def set(self, indices: np.ndarray, weights: np.ndarray) -> None:
        """Change weights; of an index that occurs twice, the last one counts."""
        self._levels[-1][indices] = weights
        nodes = np.unique(indices)
        for level in range(len(self._levels) - 2, -1, -1):
            nodes = np.unique(nodes >> 1)
            below = self._levels[level + 1]
            self._levels[level][nodes] = below[2 * nodes] + below[2 * nodes + 1]

    def find(self, points: np.ndarray) -> np.ndarray:
        """For each point in [0, total) the index i with Σ_{j<i} w_j ≤ point < Σ_{j≤i} w_j: never one of weight 0."""
        points, nodes = np.array(points, np.float64), np.zeros(len(points), np.int64)
        for level in self._levels[1:]:
            left = level[2 * nodes]
            # Rounding may lead a point to a right child that holds nothing.
            right = (points >= left) & (level[2 * nodes + 1] > 0)
            points = np.where(right, points - left, points)
            nodes = 2 * nodes + right
        return nodes
