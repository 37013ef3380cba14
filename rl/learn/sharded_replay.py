"""A prioritized replay buffer in several actors: it need not fit into one process, nor beside the learner.

    learner ──insert, priorities──▶ shard 0 … S − 1          each a `ReplayBuffer` of its own
            ◀──────minibatch──────

Transition j lies in shard j mod S, so together the shards hold what one buffer would, and drop what it would. To draw,
the sums of priorities are asked, and each of B equal parts of their total has its draw where the point falls:
transition i is drawn with p_i / Σ p, as from one buffer (Horgan et al., 2018, arXiv 1803.00933, have one in a process).

The learner is the only one who calls the shards, so what they hold follows from what it has learned from. A shard that
dies takes the learner's state with it: it is brought back as after the learner's own death.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ... import runtime
from ...runtime import ObjectRef, exceptions, get, method
from ..data.batch import Batch
from ..data.replay import ReplayBuffer, importance_weights, replay_nbytes, write_again
from ..data.rollout import Rollout
from ..data.sum_tree import SumTree
from ..data.transitions import TransitionMaker
from ..data.tree import Tree, tree_map
from .lost import StateLostError


class ReplayShard:
    """Actor class: one part of the transitions. What changes priorities returns their sum."""

    def __init__(self, columns: Mapping[str, Tree], capacity: int, alpha: float) -> None:
        self._buffer = ReplayBuffer(columns, capacity, gamma=1.0, alpha=alpha)

    def write(self, transitions: Batch, before: int) -> float:
        """Add transitions, with a column `errors` or without; so many have come before them."""
        self._buffer.inserted = before
        self._buffer.write(transitions)
        return self._buffer.priorities.total

    def set_errors(self, slots: np.ndarray, errors: np.ndarray) -> float:
        """Set priorities from temporal-difference errors."""
        self._buffer.set_errors(slots, errors)
        return self._buffer.priorities.total

    @method(num_returns=3)
    def draw(self, points: np.ndarray) -> tuple[Batch, np.ndarray, np.ndarray]:
        """The transitions at these points of the sum of priorities, their slots, and their priorities."""
        slots = self._buffer.priorities.find(points)
        return self._buffer.take(slots), slots, self._buffer.priorities.weights[slots]

    def take(self, slots: np.ndarray) -> Batch:
        """Transitions by their slots."""
        return self._buffer.take(slots)

    def state(self) -> dict[str, Any]:
        """As of a buffer."""
        return self._buffer.state()

    def load(self, priorities: np.ndarray, largest: float) -> float:
        """Set the priorities of what was written again."""
        self._buffer.load_priorities(priorities, largest)
        return self._buffer.priorities.total


class ShardedReplay:
    """At most `capacity` transitions, a multiple of `shards`, the oldest dropped first; see `ReplayBuffer`, whose
    methods these are. Rollouts of each group must come in the order in which they were made."""

    def __init__(
        self, columns: Mapping[str, Tree], capacity: int, *, shards: int, gamma: float, n_step: int, alpha: float
    ) -> None:
        assert capacity % shards == 0, "the learner's algorithm checks it"
        self.capacity, self.inserted = capacity, 0
        self._columns, self._gamma, self._n_step = dict(columns), gamma, n_step
        self._rewards = np.zeros(capacity, np.float32)
        self._makers: dict[int, TransitionMaker] = {}
        make = runtime.remote(num_cpus=0)(ReplayShard)
        self._shards = [make.remote(self._columns, capacity // shards, alpha) for _ in range(shards)]
        self._totals: dict[int, ObjectRef] = {}  # of the shards that hold something

    @property
    def size(self) -> int:
        """Transitions that it holds."""
        return min(self.inserted, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of the transitions that it holds, and of all priorities."""
        count = len(self._shards)
        return replay_nbytes(self._columns, self.size) + count * SumTree.nbytes_of(self.capacity // count)

    @property
    def rewards(self) -> np.ndarray:
        """[size] rewards of all of them, as `sample` gives them."""
        return self._rewards[: self.size]

    def insert(self, rollout: Rollout) -> None:
        """Add the transitions that the rollout of one group completes."""
        maker = self._makers.setdefault(rollout.group, TransitionMaker(gamma=self._gamma, n=self._n_step))
        self.write(maker.transitions(rollout))

    def write(self, transitions: Batch) -> None:
        """Add transitions as they are; with a column `errors`, these decide their first priorities."""
        count, shards = transitions.rows, len(self._shards)
        numbers = self.inserted + np.arange(count)
        self._rewards[numbers[-self.capacity :] % self.capacity] = transitions["rewards"][-self.capacity :]
        for index, shard in enumerate(self._shards):
            chosen = np.flatnonzero(numbers % shards == index)
            if len(chosen):
                before = int(numbers[chosen[0]]) // shards
                self._totals[index] = shard.write.remote(transitions.take(chosen), before)
        self.inserted += count

    def sample(self, uniform: np.ndarray, *, beta: float = 1.0) -> Batch:
        """As `ReplayBuffer.sample`. Raises StateLostError if a shard has died."""
        rows, known = len(uniform), list(self._totals)
        totals = np.array(self._ask([self._totals[index] for index in known]))
        ends = np.cumsum(totals)
        points = (np.arange(rows) + uniform) * (ends[-1] / rows)
        place = np.minimum(np.searchsorted(ends, points, side="right"), len(known) - 1)
        places = np.unique(place)
        asked = [self._shards[known[at]].draw.remote(points[place == at] - (ends[at] - totals[at])) for at in places]
        drawn = self._ask([ref for refs in asked for ref in refs])
        indices = [slots * len(self._shards) + known[at] for at, slots in zip(places, drawn[1::3], strict=True)]
        probabilities = np.concatenate(drawn[2::3]) / ends[-1]
        return Batch.end_to_end(drawn[::3]).plus(
            indices=np.concatenate(indices), weights=importance_weights(probabilities, self.size, beta)
        )

    def set_errors(self, indices: np.ndarray, errors: np.ndarray) -> None:
        """Set the priorities of drawn transitions from their temporal-difference errors."""
        slots, where = np.divmod(indices, len(self._shards))
        for index in np.unique(where):
            own = where == index
            self._totals[index] = self._shards[index].set_errors.remote(slots[own], errors[own])

    def newest(self, count: int) -> Batch:
        """The last `count` transitions inserted (at most `size`), oldest first, in the object store's memory."""
        count = min(count, self.size)
        slots, where = np.divmod((self.inserted - count + np.arange(count)) % self.capacity, len(self._shards))
        batch = Batch.allocate(self._columns, count)
        found = np.unique(where)
        parts = self._ask([self._shards[index].take.remote(slots[where == index]) for index in found])
        for index, taken in zip(found, parts, strict=True):
            own = where == index
            for name in self._columns:
                tree_map(lambda to, part, own=own: _put(to, own, part), batch[name], taken[name])
        return batch

    # ---- state, without the transitions themselves

    def state(self) -> dict[str, Any]:
        """Counters, priorities and incomplete transitions: a tree of arrays and numbers. Not of how many shards."""
        states = self._ask([shard.state.remote() for shard in self._shards])
        priorities = np.empty(self.size)
        for index, state in enumerate(states):
            priorities[index :: len(self._shards)] = state["priorities"]
        return {
            "inserted": self.inserted,
            "size": self.size,
            "largest": max(state["largest"] for state in states),
            "priorities": priorities,
            "pending": {str(group): maker.state() for group, maker in self._makers.items()},
        }

    def load(self, state: Mapping[str, Any], transitions: list[Batch]) -> None:
        """Continue from `state`, as `ReplayBuffer.load`."""
        write_again(self, state["inserted"], transitions)
        for index in self._totals:
            own = np.array(state["priorities"][index :: len(self._shards)])
            self._totals[index] = self._shards[index].load.remote(own, state["largest"])
        for group, pending in state["pending"].items():
            maker = self._makers.setdefault(int(group), TransitionMaker(gamma=self._gamma, n=self._n_step))
            maker.load(pending)

    @staticmethod
    def _ask(refs: list[ObjectRef]) -> list[Any]:
        try:
            return get(refs)
        except exceptions.ActorDiedError as error:
            raise StateLostError(f"a replay shard has died: {error}") from error


def _put(to: np.ndarray, own: np.ndarray, part: np.ndarray) -> None:
    to[own] = part
