"""Minibatches of a dataset: transitions drawn with replacement from a block of episodes that lies in memory.

A dataset that fits is one block. A larger one is read pass after pass, its pieces (some whole episodes each) in another
order each time, as many to a block as there is room for, and each block is kept for as many minibatches as it holds
rows for. `shoal.data` reads them, by tasks and ahead of the learner. What minibatch number n holds follows from the run
seed and n alone; where its block begins, from which a training that was resumed reads on, is what `place` says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...runtime import ActorHandle, InputError
from .batch import Batch, Column
from .dataset import Dataset, RecordedSteps
from .piece_reader import PieceReader, Place, piece_at
from .returns import discounted_returns
from .tree import Tree

Stream = Callable[..., np.random.Generator]
"""The random stream of a purpose and indices."""
_AHEAD = 256 << 20
"""Bytes that are read ahead of a block, unless an episode is so long that more are needed."""
_PIECES = 16
"""Into how many pieces a block is cut at least, so that it can be filled well."""


class EpisodeBlock:
    """Whole episodes in memory, no observation twice.

    Args:
        steps: for how many there is room.
        episodes: for how many.
        observations, actions: columns of one row, actions as the model gives them.
        own_actions: makes those of rows that `env.step` took.
        gamma: discount per step.
    """

    def __init__(
        self,
        *,
        steps: int,
        episodes: int,
        observations: Column,
        actions: Column,
        own_actions: Callable[[np.ndarray], np.ndarray],
        gamma: float,
    ) -> None:
        self.steps = self._seen = 0
        self._observations = np.empty((steps + episodes, *observations.shape), observations.dtype)
        self._actions = np.empty((steps, *actions.shape), actions.dtype)
        self._rewards, self._discounts = np.empty((2, steps), np.float32)
        self._ends = np.empty(steps, np.bool_)
        self._rows = np.empty(steps, np.int64)
        self._own_actions, self._gamma = own_actions, np.float32(gamma)
        self._to_the_end: _ToTheEnd | None = None

    def clear(self) -> None:
        """Make room for others."""
        self.steps = self._seen = 0
        self._to_the_end = None

    def add(self, part: RecordedSteps) -> None:
        """Take in some more whole episodes. Raises InputError if there is no room for them."""
        steps, seen = self.steps + len(part), self._seen + len(part.observations)
        if steps > len(self._rows) or seen > len(self._observations):
            raise InputError(
                f"the dataset should have at most {len(self._rows)} steps here, but has {steps}: it is damaged"
            )
        own = slice(self.steps, steps)
        self._observations[self._seen : seen] = part.observations
        self._actions[own] = self._own_actions(part.actions)
        self._rewards[own] = part.rewards
        self._discounts[own] = np.where(part.terminations, np.float32(0), self._gamma)
        self._ends[own] = part.ends
        self._rows[own] = part.rows + self._seen
        self.steps, self._seen = steps, seen

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
            held = slice(self.steps)
            self._to_the_end = _ToTheEnd.of(self._rewards[held], self._discounts[held], self._ends[held])
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


@dataclass(frozen=True)
class _Place:
    """Where a block begins."""

    first: int = 0
    """Number of its first minibatch."""
    state: Place | None = None
    """Of the reading; None: at its beginning."""


class DatasetReader:
    """Draws minibatches of `rows` transitions.

    Args:
        dataset: what to read.
        capacity: transitions that lie in memory at a time; an episode that is longer is read as a whole.
        rows: of a minibatch.
        stream: the run's random streams.
        reader: the actor that reads for all learners of a group; None: this one reads for itself.
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
        reader: ActorHandle | None = None,
    ) -> None:
        self._dataset, self._rows, self._stream = dataset, rows, stream
        self._new_block = partial(
            EpisodeBlock, observations=observations, actions=actions, own_actions=own_actions, gamma=gamma
        )
        self._is_whole = dataset.steps <= capacity
        self._capacity = dataset.steps if self._is_whole else max(capacity, int(dataset.lengths.max()))
        self._transitions = dataset.transitions()
        if not self._is_whole:
            pieces = dataset.transitions(max(1, min(4_096, capacity // _PIECES)))
            self._transitions = pieces.shuffle(int(stream("dataset order").integers(2**31)), window=1).repeat()
        step = 2 * _bytes_of(observations) + _bytes_of(actions) + 32
        memory = max(_AHEAD, 3 * step * int(dataset.lengths.max()))  # a running task counts twice
        self._transitions = self._transitions.options(memory=memory)
        self._block: EpisodeBlock | None = None
        self._place = self._next = _Place()  # of the block, and of the one after it
        self._reader: PieceReader | ActorHandle = reader or PieceReader()
        self._at: Place | None = None  # of the next piece
        self._ahead: tuple[Place, RecordedSteps] | None = None  # what there was no room for, and its place

    def sample(self, number: int, columns: Sequence[str]) -> Batch:
        """Minibatch `number`, from 0 on; columns as in `EpisodeBlock.take`."""
        block = self._block_of(number)
        indices = self._stream("dataset rows", number).integers(block.steps, size=self._rows)
        return block.take(indices, columns)

    def observations(self) -> Iterator[np.ndarray]:
        """All observations, rows [B, …] of a piece at a time, in the dataset's own order."""
        for rows in self._dataset.transitions().iter_batches():
            yield self._dataset.steps_of(rows).observations

    def place(self) -> np.ndarray | None:
        """[…] uint8: where the block lies that was drawn from last, for `go_to`; None where all are one block."""
        if self._is_whole:
            return None
        return np.frombuffer(json.dumps(vars(self._place)).encode(), np.uint8)

    def go_to(self, place: np.ndarray | None, number: int) -> None:
        """Go on before minibatch `number` with the block at a place, which is read again; where the place is that of a
        reader with another capacity, with a new pass."""
        if self._is_whole:
            return
        known = _Place(first=number) if place is None else _Place(**json.loads(place.tobytes()))
        if known.state is not None and known.state["plan"] != self._transitions.fingerprint():
            known = _Place(first=number)
        self._open(known)

    def close(self) -> None:
        """Drop what was read ahead."""
        if isinstance(self._reader, PieceReader):
            self._reader.close()
        self._ahead = None

    def _block_of(self, number: int) -> EpisodeBlock:
        if number < self._place.first:
            self._open(_Place())
        while self._block is None or not self._block.steps or (number >= self._next.first and not self._is_whole):
            self._read()
        return self._block

    def _open(self, place: _Place) -> None:
        self.close()
        self._place = self._next = place
        self._at = place.state
        if self._block is not None:
            self._block.clear()

    def _read(self) -> None:
        """Read the next block, into the memory of the one before: there need not be any for two."""
        place = self._place = self._next
        if self._block is None:
            episodes = min(self._dataset.episodes, self._capacity)
            self._block = self._new_block(steps=self._capacity, episodes=episodes)
        block = self._block
        block.clear()
        while (part := self._part()) is not None:
            state, steps = part
            if block.steps and block.steps + len(steps) > self._capacity and not self._is_whole:
                self._ahead = part
                self._next = _Place(place.first + -(-block.steps // self._rows), state)
                return
            block.add(steps)
        self.close()
        if block.steps < self._capacity:
            raise InputError(
                f"dataset {self._dataset.name!r} should have {self._dataset.steps} steps, but has {block.steps}: it is "
                "damaged"
            )

    def _part(self) -> tuple[Place, RecordedSteps] | None:
        """The next episodes that were read together, and where they lie; None at the end of a pass."""
        found, self._ahead = self._ahead, None
        if found is None:
            taken = piece_at(self._reader, self._transitions, self._at)
            if taken is None:
                return None
            piece, rows = taken
            self._at, found = piece.following, (piece.place, self._dataset.steps_of(rows))
        return found


def _bytes_of(column: Column) -> int:
    return math.prod(column.shape) * np.dtype(column.dtype).itemsize
