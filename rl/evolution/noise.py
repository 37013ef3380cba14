"""Perturbations of weights, as slices of one table of noise that everybody can read.

A direction is named by where it begins in the table, eight bytes whatever the size of the network: that is what tasks
are told, instead of the perturbation (Salimans et al., 2017, arXiv 1703.03864, section 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...envs import stream
from ..models.joint_spec import AnySpec, JointSpec
from ..models.layout import ParameterLayout
from ..models.spec import ModelSpec

ALONE = "policy"
"""What the policy of one agent is called among those that are searched."""
NORMALIZER = "normalizer."
"""What the names of the statistics of observations begin with."""


def noise_table(seed: int, size: int) -> np.ndarray:
    """`size` standard normal float32 numbers, from the stream ("noise table")."""
    return stream(seed, "noise table").standard_normal(size, dtype=np.float32)


@dataclass(frozen=True)
class Searched:
    """What of one policy is searched: all its weights behind the statistics of observations, with which they begin."""

    spec: ModelSpec
    prefix: str
    """What the names of its parameters begin with."""
    weights: slice
    """Where they are in the flat weights."""
    noise: slice
    """Where in a direction is what moves them."""

    @property
    def width(self) -> int:
        """Numbers that are searched."""
        return self.noise.stop - self.noise.start


@dataclass(frozen=True)
class SearchSpace:
    """Which of the flat weights are searched: of each policy that learns, one behind the other in a direction."""

    policies: Mapping[str, Searched]
    """By name."""

    @staticmethod
    def of(spec: AnySpec, layout: ParameterLayout) -> SearchSpace:
        """That of a model, or of several agents' models."""
        if not isinstance(spec, JointSpec):
            return SearchSpace({ALONE: _searched(spec, layout, "", 0)})
        found: dict[str, Searched] = {}
        width = 0
        for name, own in spec.policies.items():
            if name not in spec.frozen:
                found[name] = _searched(own, layout, f"{name}.", width)
                width = found[name].noise.stop
        return SearchSpace(found)

    @property
    def width(self) -> int:
        """Numbers in a direction."""
        return max(own.noise.stop for own in self.policies.values())

    def directions(self, seed: int, generation: int, count: int, table_size: int) -> np.ndarray:
        """Where `count` directions begin in the table, int64, from the stream ("directions", generation)."""
        return stream(seed, "directions", generation).integers(0, table_size - self.width + 1, count)

    def perturbed(self, weights: np.ndarray, noise: np.ndarray, direction: int, scale: float) -> np.ndarray:
        """New flat weights: θ + `scale` · ε, ε being the slice of the table that begins at `direction`."""
        moved = weights.copy()
        step = np.float32(scale) * noise[direction : direction + self.width]
        for own in self.policies.values():
            moved[own.weights] += step[own.noise]
        return moved


def _searched(spec: ModelSpec, layout: ParameterLayout, prefix: str, width: int) -> Searched:
    """What is searched of the policy with such parameters; `width` numbers of a direction are others'."""
    names = [name for name in layout.shapes if name.startswith(prefix)]
    first = next(layout.offsets[name] for name in names if not name.startswith(prefix + NORMALIZER))
    end = layout.offsets[names[-1]] + math.prod(layout.shapes[names[-1]])
    return Searched(spec, prefix, slice(first, end), slice(width, width + end - first))
