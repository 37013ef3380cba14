"""Running statistics of what a training sees, and the scales that follow from them.

Moments are kept in float64 and merged rollout by rollout (Chan, Golub & LeVeque, 1979, equation 2.1), each rollout
being a whole in group order. So they depend neither on the number of workers nor on which of them died.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space

from ...envs import MASK, LeafCodec, codec, part_of

CLIP = 10.0
"""Normalized observations and rewards lie within ±10, as in Stable-Baselines3's `VecNormalize`."""
EPSILON = 1e-8
"""Added to variances, as there."""


class RunningMoments:
    """Mean and variance of each element, over all rows merged so far; `shape` is that of one row."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0
        self.mean = np.zeros(shape)
        self.squares = np.zeros(shape)

    def merge(self, rows: np.ndarray) -> None:
        """Add rows [B, *shape] of any numeric dtype."""
        if not len(rows):
            return
        values = np.asarray(rows, np.float64)
        mean = values.mean(0)
        self._add(len(values), mean, np.square(values - mean).sum(0))

    def join(self, other: RunningMoments) -> None:
        """Add all rows that other moments have seen."""
        if other.count:
            self._add(other.count, other.mean, other.squares)

    def _add(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total, difference = self.count + count, mean - self.mean
        self.squares = self.squares + squares + np.square(difference) * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    @property
    def scale(self) -> np.ndarray:
        """1 / √(variance + ε), [*shape] float64, of the population; 1 before the first row."""
        return 1 / np.sqrt(self.squares / self.count + EPSILON) if self.count else np.ones_like(self.mean)

    def state(self) -> dict[str, Any]:
        """What `load` continues from."""
        return {"count": self.count, "mean": self.mean.copy(), "squares": self.squares.copy()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.count = int(state["count"])
        self.mean, self.squares = (np.array(state[name], np.float64) for name in ("mean", "squares"))


class ObservationMoments:
    """Of the parts of observations that are vectors of numbers: not of images, choices, coins and masks."""

    def __init__(self, space: Space) -> None:
        leaves = normalized_leaves(space)
        self._parts = {path: parts for path, (parts, _) in leaves.items()}
        self._moments = {path: RunningMoments((leaf.row_size,)) for path, (_, leaf) in leaves.items()}

    def merge(self, observations: np.ndarray) -> None:
        """Add observations [B, *shape], rows of the space's codec."""
        for path, parts in self._parts.items():
            self._moments[path].merge(part_of(observations, parts).reshape(len(observations), -1))

    def join(self, other: ObservationMoments) -> None:
        """Add all observations that other moments, of the same space, have seen."""
        for path, moments in self._moments.items():
            moments.join(other._moments[path])

    def scales(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and 1 / √(variance + ε) of each such part by where it lies, [n] float64 each."""
        return {path: (moments.mean, moments.scale) for path, moments in self._moments.items()}

    def state(self) -> dict[str, Any]:
        """What `load` continues from."""
        return {path: moments.state() for path, moments in self._moments.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        for path, moments in self._moments.items():
            moments.load(state[path])


def normalized_leaves(space: Space) -> dict[str, tuple[tuple[str, ...], LeafCodec]]:
    """The parts of observations that are normalized, by their path; with where they lie."""
    return {
        "/".join(parts): (parts, leaf)
        for parts, leaf in codec(space).leaves()
        if leaf.kind == "Box" and not leaf.is_image and parts != (MASK,)
    }


class RewardScale:
    """Divides rewards by the deviation of the discounted sum of the rewards so far, R_t = γ R_{t−1} + r_t, which each
    environment has for itself and which begins anew with each episode: as `VecNormalize` does."""

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma
        self._moments = RunningMoments()
        self._returns: np.ndarray | None = None

    def merge(self, rewards: np.ndarray, ended: np.ndarray, counted: np.ndarray | None = None) -> None:
        """Add the rewards [T, N] of a rollout; `ended` [T, N] is where an episode did, by termination or truncation,
        `counted` which rows count (None: all), the others being no steps. Rollouts must come in the order in which
        they were made."""
        running = np.zeros(rewards.shape[1]) if self._returns is None else self._returns
        returns = np.empty(rewards.shape)
        for t, (reward, end) in enumerate(zip(rewards.astype(np.float64), ended, strict=True)):
            returns[t] = after = self._gamma * running + reward
            after = np.where(end, 0.0, after)
            running = after if counted is None else np.where(counted[t], after, running)
        self._returns = running
        self._moments.merge(returns.ravel() if counted is None else returns[counted])

    def __call__(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards of any shape, scaled, within ±10, float32."""
        return np.clip(rewards * self._moments.scale, -CLIP, CLIP).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """What `load` continues from."""
        return {"moments": self._moments.state(), "returns": None if self._returns is None else self._returns.copy()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._moments.load(state["moments"])
        self._returns = None if state["returns"] is None else np.array(state["returns"], np.float64)
