"""Replay: the transitions of the past, drawn uniformly or by priority.

Uniform as in Mnih et al., 2015; prioritized as in Schaul et al., 2016, arXiv 1511.05952, section 3.3, proportional:

    P(i) = p_i / Σ p,   p_i = (|δ_i| + ε)^α;   weight_i = (size · P(i))^−β / max over the minibatch

A new transition gets the p of its error where that is known from whoever acted, else the largest that any has had (1
while there is none). Draws are stratified: one from each of B
equal parts of Σ p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...runtime import InputError
from .batch import Batch, Column
from .ring import Ring
from .rollout import Rollout
from .sum_tree import SumTree
from .transitions import TransitionMaker
from .tree import Tree, leaves

PRIORITY_EPSILON = 1e-6
"""Added to every error, so that no transition can vanish from the draws."""


def transition_columns(observations: Tree, actions: Tree) -> dict[str, Tree]:
    """Columns of a replay buffer, from trees of `Column` for observations and actions."""
    return {
        "observations": observations,
        "actions": actions,
        "rewards": Column(),
        "next_observations": observations,
        "discounts": Column(),
    }


def replay_nbytes(columns: Mapping[str, Tree], rows: int) -> int:
    """Bytes of so many transitions; their priorities take more (see `SumTree`)."""
    return rows * sum(column.nbytes for _, column in leaves(dict(columns)))


class ReplayBuffer:
    """At most `capacity` transitions, the oldest dropped first, in one block of the object store (see `Ring`).

    Args:
        columns: trees of `Column`, as from `transition_columns`.
        capacity: transitions.
        gamma: discount per step.
        n_step: rewards summed in each.
        alpha: exponent of priorities; None draws uniformly.
    """

    def __init__(
        self, columns: Mapping[str, Tree], capacity: int, *, gamma: float, n_step: int = 1, alpha: float | None = None
    ) -> None:
        if capacity < 1:
            raise InputError(f"a replay buffer holds at least 1 transition, not {capacity}")
        self.capacity, self._alpha = capacity, alpha
        self._row_nbytes = replay_nbytes(columns, 1)
        self._ring = Ring(columns, capacity)
        self._maker = TransitionMaker(gamma=gamma, n=n_step)
        self._priorities = None if alpha is None else SumTree(capacity)
        self._largest = 0.0
        self.inserted = 0

    @property
    def size(self) -> int:
        """Transitions that it holds."""
        return min(self.inserted, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of the transitions that it holds, and of all priorities."""
        return self.size * self._row_nbytes + (0 if self._priorities is None else self._priorities.nbytes)

    @property
    def rewards(self) -> np.ndarray:
        """[size] rewards of all of them, as `sample` gives them."""
        return self._ring.column("rewards")[: self.size]

    def insert(self, rollout: Rollout) -> None:
        """Add the transitions that `rollout` completes; rollouts must come in the order in which they were made."""
        self.write(self._maker.transitions(rollout))

    def write(self, transitions: Batch) -> None:
        """Add transitions as they are; with a column `errors`, these decide their first priorities."""
        count = transitions.rows
        dropped = max(0, count - self.capacity)  # more than fit: the first would be overwritten at once
        self._ring.write(self.inserted + dropped, transitions.take(slice(dropped, None)) if dropped else transitions)
        if self._priorities is not None and count:
            slots = (self.inserted + np.arange(dropped, count)) % self.capacity
            if "errors" in transitions:
                self.set_errors(slots, transitions["errors"][dropped:])
            else:
                self._priorities.set(slots, np.full(len(slots), self._largest or 1.0))
        self.inserted += count

    def newest(self, count: int) -> Batch:
        """The last `count` transitions inserted (at most `size`), oldest first, in the object store's memory."""
        count = min(count, self.size)
        return self._ring.copy(self.inserted - count, count)

    def sample(self, uniform: np.ndarray, *, beta: float = 1.0) -> Batch:
        """Transitions drawn with replacement, one for each of `uniform` numbers [B] in [0, 1), float64; also `indices`
        int64, for `set_errors`, and `weights` float32.

        Weights are 1 without priorities; with them they correct what drawing by priority favours, to the degree β.
        Raises ValueError if the buffer is empty.
        """
        if not self.size:
            raise ValueError("the replay buffer is empty: nothing can be drawn from it")
        rows = len(uniform)
        if self._priorities is None:
            indices = (uniform * self.size).astype(np.int64)  # never `size`: float64 rounds the product down
            weights = np.ones(rows, np.float32)
        else:
            points = (np.arange(rows) + uniform) * (self._priorities.total / rows)
            indices = self._priorities.find(points)
            probabilities = self._priorities.weights[indices] / self._priorities.total
            weights = importance_weights(probabilities, self.size, beta)
        return self.take(indices).plus(indices=indices, weights=weights)

    def take(self, slots: np.ndarray) -> Batch:
        """Transitions by their slots: copies."""
        return self._ring.take(slots)

    @property
    def priorities(self) -> SumTree:
        """The priorities of a buffer that has some."""
        assert self._priorities is not None, "it draws uniformly"
        return self._priorities

    def set_errors(self, indices: np.ndarray, errors: np.ndarray) -> None:
        """Set the priorities of drawn transitions from their temporal-difference errors; does nothing without them."""
        if self._priorities is None:
            return
        assert self._alpha is not None
        priorities = (np.abs(np.asarray(errors, np.float64)) + PRIORITY_EPSILON) ** self._alpha
        self._largest = max(self._largest, float(priorities.max()))
        self._priorities.set(indices, priorities)

    # ---- state, without the transitions themselves

    def state(self) -> dict[str, Any]:
        """Counters, priorities and incomplete transitions: a tree of arrays and numbers."""
        state: dict[str, Any] = {"inserted": self.inserted, "size": self.size, "largest": self._largest}
        if self._priorities is not None:
            state["priorities"] = self._priorities.weights[: self.size].copy()
        pending = self._maker.state()
        return state | ({"pending": pending} if pending else {})

    def load(self, state: Mapping[str, Any], transitions: list[Batch]) -> None:
        """Continue from `state`; `transitions` are all that were inserted before, or at least the newest `capacity`.

        Raises ValueError if they are fewer.
        """
        write_again(self, state["inserted"], transitions)
        self._largest = state["largest"]
        if self._priorities is not None:
            self.load_priorities(state["priorities"], state["largest"])
        pending = state.get("pending")
        if pending is not None:
            self._maker.load(pending)

    def load_priorities(self, priorities: np.ndarray, largest: float) -> None:
        """Set the priorities [size] of all transitions, and the largest that any has had."""
        self._largest = largest
        self.priorities.set(np.arange(self.size), priorities)


class Writable(Protocol):
    """What `write_again` fills."""

    capacity: int
    inserted: int

    def write(self, batch: Batch) -> Any:
        """Insert transitions."""


def write_again(buffer: Writable, inserted: int, transitions: Sequence[Batch]) -> None:
    """Put back what a buffer held after so many were `inserted`. ValueError if `transitions` are fewer than it held."""
    there = sum(batch.rows for batch in transitions)
    if there < min(inserted, buffer.capacity):
        raise ValueError(f"the replay buffer needs {inserted} transitions back, but gets {there}")
    buffer.inserted = inserted - there
    for batch in transitions:
        buffer.write(batch)


def importance_weights(probabilities: np.ndarray, size: int, beta: float) -> np.ndarray:
    """float32 weights that correct to the degree β for drawing with these probabilities from `size` transitions; the
    largest is 1."""
    raw = (size * probabilities) ** -beta
    return (raw / raw.max()).astype(np.float32)
