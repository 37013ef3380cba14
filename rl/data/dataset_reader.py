"""Minibatches of a dataset: transitions drawn with replacement from a block of episodes that lies in memory.

A dataset that fits is one block. A larger one is read block by block: each pass over it puts the episodes into another
order and takes as many as fit at a time, each block for as many minibatches as it holds rows for. What minibatch number
n holds follows from the run seed and n alone, so that a training that was resumed, or a learner that was restarted,
reads on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime import InputError
from .batch import Batch, Column
from .dataset import Dataset, RecordedEpisode
from .returns import discounted_returns
from .tree import Tree

Stream = Callable[..., np.random.Generator]
"""The random stream of a purpose and indices."""


class EpisodeBlock:
    """Whole episodes in memory, no observation twice.

    Args:
        episodes: at least one of them, `count` episodes of together `steps` steps.
        observations, actions: columns of one row, actions as the model gives them.
        own_actions: makes those of rows that `env.step` took.
        gamma: discount per step.
    """

    def __init__(
        self,
        episodes: Iterable[RecordedEpisode],
        *,
        count: int,
        steps: int,
        observations: Column,
        actions: Column,
        own_actions: Callable[[np.ndarray], np.ndarray],
        gamma: float,
    ) -> None:
        self.steps = steps
        self._observations = np.empty((steps + count, *observations.shape), observations.dtype)
        self._actions = np.empty((steps, *actions.shape), actions.dtype)
        self._rewards = np.empty(steps, np.float32)
        self._discounts = np.empty(steps, np.float32)
        self._ends = np.empty(steps, np.bool_)
        self._rows = np.empty(steps, np.int64)
        self._gamma = gamma
        self._to_the_end: _ToTheEnd | None = None
        at = 0
        for index, episode in enumerate(episodes):
            part, row = slice(at, at + len(episode)), at + index
            if part.stop > steps:
                break
            self._observations[row : row + len(episode) + 1] = episode.observations
            self._actions[part] = own_actions(episode.actions)
            self._rewards[part] = episode.rewards
            self._discounts[part] = np.where(episode.terminations, np.float32(0), np.float32(gamma))
            self._ends[part] = episode.terminations | episode.truncations
            self._ends[part.stop - 1] = True
            self._rows[part] = np.arange(row, row + len(episode))
            at = part.stop
        if at != steps:
            raise InputError(
                f"{count} episodes of the dataset should have {steps} steps, but have others: it is damaged"
            )

    def take(self, indices: np.ndarray, columns: Sequence[str]) -> Batch:
        """The transitions `indices` [B] int64.

        Columns: `observations`, `actions`, `rewards`, `next_observations` and `discounts` (γ, or 0 where the step
        terminated), as in a replay buffer. And of the rest of the episode `returns`, Σ γ^k r_{t+k};
        `end_observations`, its last one; and `end_discounts`, what the value of that counts for in a return: γ^m where
        the episode was cut off after m steps, 0 where it terminated.
        """
        rows = self._rows[indices]
        found: dict[str, Tree] = {}
        for name in columns:
            if name == "observations":
                found[name] = self._observations[rows]
            elif name == "next_observations":
                found[name] = self._observations[rows + 1]
            elif name == "end_observations":
                found[name] = self._observations[self._rows[self._rest.last[indices]] + 1]
            else:
                values = {
                    "actions": self._actions,
                    "rewards": self._rewards,
                    "discounts": self._discounts,
                    **({} if not name.startswith(("returns", "end_")) else self._rest.columns),
                }
                found[name] = values[name][indices]
        return Batch(found)

    @property
    def _rest(self) -> _ToTheEnd:
        if self._to_the_end is None:
            self._to_the_end = _ToTheEnd.of(self._rewards, self._discounts, self._ends)
        return self._to_the_end


@dataclass(frozen=True)
class _ToTheEnd:
    """What follows each step in its episode."""

    last: np.ndarray
    """[steps] int64: the episode's last step."""
    columns: dict[str, np.ndarray]
    """`returns` and `end_discounts`, [steps] float32."""

    @staticmethod
    def of(rewards: np.ndarray, discounts: np.ndarray, ends: np.ndarray) -> _ToTheEnd:
        def total(r_t: np.ndarray, v_t: np.ndarray) -> np.ndarray:
            going_on = (~ends).astype(np.float64)
            with_one_column = (array[:, np.newaxis] for array in (r_t, discounts.astype(np.float64), going_on, v_t))
            names = ("r_t", "discount_t", "continues_t", "v_t")
            found = discounted_returns(**dict(zip(names, with_one_column, strict=True)))
            return found[:, 0].astype(np.float32)

        nothing = np.zeros(len(rewards))
        last = np.flatnonzero(ends)[np.searchsorted(np.flatnonzero(ends), np.arange(len(ends)))]
        columns = {"returns": total(rewards.astype(np.float64), nothing), "end_discounts": total(nothing, nothing + 1)}
        return _ToTheEnd(last, columns)


class DatasetReader:
    """Draws minibatches of `rows` transitions.

    Args:
        dataset: what to read.
        capacity: transitions that lie in memory at a time; an episode that is longer is read as a whole.
        rows: of a minibatch.
        stream: the run's random streams.
        others: as in `EpisodeBlock`.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        capacity: int,
        rows: int,
        stream: Stream,
        observations: Column,
        actions: Column,
        own_actions: Callable[[np.ndarray], np.ndarray],
        gamma: float,
    ) -> None:
        self._dataset, self._capacity, self._rows, self._stream = dataset, capacity, rows, stream
        self._columns, self._own_actions, self._gamma = (observations, actions), own_actions, gamma
        self._pass = _Pass(0, 0, (), np.zeros(1, np.int64))
        self._block: tuple[tuple[int, int], EpisodeBlock] | None = None

    def sample(self, number: int, columns: Sequence[str]) -> Batch:
        """Minibatch `number`, from 0 on; columns as in `EpisodeBlock.take`."""
        block = self._block_of(number)
        indices = self._stream("dataset rows", number).integers(block.steps, size=self._rows)
        return block.take(indices, columns)

    def observations(self) -> Iterator[np.ndarray]:
        """All observations, rows [B, …] of about a block's size at a time, in the dataset's own order."""
        parts: list[np.ndarray] = []
        held = 0
        for episode in self._dataset.read(range(self._dataset.episodes)):
            parts.append(episode.observations)
            held += len(episode)
            if held >= self._capacity:
                yield np.concatenate(parts)
                parts, held = [], 0
        if parts:
            yield np.concatenate(parts)

    def _block_of(self, number: int) -> EpisodeBlock:
        if self._dataset.steps <= self._capacity:
            return self._read((0, 0), np.arange(self._dataset.episodes), self._dataset.steps)
        if number < self._pass.first:
            self._pass = _Pass(0, 0, (), np.zeros(1, np.int64))
        while number >= self._pass.first + self._pass.ends[-1]:
            self._pass = self._next_pass()
        index = int(np.searchsorted(self._pass.ends, number - self._pass.first, side="right"))
        episodes = self._pass.blocks[index]
        return self._read((self._pass.index, index), episodes, int(self._dataset.lengths[episodes].sum()))

    def _next_pass(self) -> _Pass:
        index, first = self._pass.index + 1, self._pass.first + int(self._pass.ends[-1])
        order = self._stream("dataset order", index).permutation(self._dataset.episodes)
        lengths = self._dataset.lengths[order]
        blocks, start, held = [], 0, 0
        for at, length in enumerate(lengths):
            if held and held + length > self._capacity:
                blocks.append(order[start:at])
                start, held = at, 0
            held += int(length)
        blocks.append(order[start:])
        counts = [-(-int(self._dataset.lengths[block].sum()) // self._rows) for block in blocks]
        return _Pass(index, first, tuple(blocks), np.cumsum(counts))

    def _read(self, name: tuple[int, int], episodes: np.ndarray, steps: int) -> EpisodeBlock:
        if self._block is None or self._block[0] != name:
            self._block = None  # before the next one is read: there need not be memory for two
            observations, actions = self._columns
            block = EpisodeBlock(
                self._dataset.read(episodes),
                count=len(episodes),
                steps=steps,
                observations=observations,
                actions=actions,
                own_actions=self._own_actions,
                gamma=self._gamma,
            )
            self._block = name, block
        return self._block[1]


@dataclass(frozen=True)
class _Pass:
    """One pass over a dataset that is larger than memory."""

    index: int
    first: int
    """Number of its first minibatch."""
    blocks: tuple[np.ndarray, ...]
    """Episodes of each block."""
    ends: np.ndarray
    """Minibatches of the pass until the end of each block."""
