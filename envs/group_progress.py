"""Where each environment of a simulation group is: its episode, seed and step, and the actions that led there."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .action_log import ActionLog
from .group_state import GroupState, Recovery
from .group_step import Episode
from .reproducer import Moment, note_on
from .seeding import episode_seed
from .spec import EnvSpec


class GroupProgress:
    """The place of each environment in the run.

    Attributes:
        spec: what the environments are made from.
        run_seed: seed of the run.
        first_index: logical index of the group's first environment.
        environments: logical index of the one whose episode each row plays.
        steps: steps that each has taken in the run.
        episodes: index of each one's current episode, from 0; -1 before the first.
        seeds: what its reset got; 0 where it takes none of its own.
        begins: `steps` when it began.
    """

    def __init__(
        self,
        spec: EnvSpec,
        size: int,
        first_index: int,
        run_seed: int,
        next_episode: Callable[[int], tuple[int, int]] | None = None,
        *,
        seeded: bool = True,
    ) -> None:
        self.spec, self.first_index, self.run_seed = spec, first_index, run_seed
        self.environments = [first_index + row for row in range(size)]
        self._next_episode = next_episode
        self.steps, self._seeded = 0, seeded
        self.episodes, self.seeds, self.begins = [-1] * size, [0] * size, [0] * size
        self._log: ActionLog | None = None
        self._actions_dtype = np.dtype(np.float32)

    def record(self, log: ActionLog, dtype: np.dtype) -> None:
        """Take note of where the last actions are kept, and in which dtype the environments got them."""
        self._log, self._actions_dtype = log, dtype

    def begin_episode(self, row: int) -> int:
        """Go on to the next episode; return its seed."""
        if self._next_episode is None:
            self.episodes[row] += 1
        else:
            self.environments[row], self.episodes[row] = self._next_episode(row)
        self.begins[row] = self.steps
        if self._seeded:
            self.seeds[row] = episode_seed(self.run_seed, self.environments[row], self.episodes[row])
        return self.seeds[row]

    def begin_episodes(self, rows: Sequence[int]) -> list[int]:
        """Go on to the next episode of some rows; return their seeds."""
        if self._seeded or self._next_episode is not None:
            return [self.begin_episode(row) for row in rows]
        episodes, begins, steps = self.episodes, self.begins, self.steps
        for row in rows:
            episodes[row] += 1
            begins[row] = steps
        return [0] * len(rows)

    def length(self, row: int) -> int:
        """Return how many steps the current episode has."""
        return self.steps - self.begins[row]

    def total_length(self) -> int:
        """Return how many steps all current episodes have together."""
        return len(self.begins) * self.steps - sum(self.begins)

    def ended(self, row: int, return_: float, *, with_actions: bool = False) -> Episode:
        """Return the current episode as one that is over."""
        length, actions = self.steps - self.begins[row], None
        if with_actions and self._log is not None:
            actions = self._log.bytes_of_row(row, length)
        return Episode(
            self.environments[row], self.episodes[row], return_, length, self.seeds[row], self.steps, actions
        )

    def all_ended(self, rows: Sequence[int], returns: Sequence[float]) -> list[Episode]:
        """Return what `ended` does for each of some rows, without actions."""
        steps, begins, environments, episodes, seeds = (
            self.steps, self.begins, self.environments, self.episodes, self.seeds,
        )  # fmt: skip
        return [
            Episode(environments[row], episodes[row], return_, steps - begins[row], seeds[row], steps)
            for row, return_ in zip(rows, returns, strict=True)
        ]

    def state(
        self,
        recovery: Recovery,
        replayable: bool,
        *,
        observations: np.ndarray,
        returns: np.ndarray,
        actions: np.ndarray,
        payload: Any,
    ) -> GroupState:
        """Return all this, and what else the group is made of, as a state; the arrays are copied."""
        size = len(self.seeds)
        return GroupState(
            environment_id=self.spec.id,
            run_seed=self.run_seed,
            first_index=self.first_index,
            size=size,
            steps=self.steps,
            recovery=recovery,
            replayable=replayable,
            observations=observations.copy(),
            episodes=np.array(self.episodes, np.int64),
            seeds=np.array(self.seeds, np.int64),
            lengths=np.array([self.length(row) for row in range(size)], np.int64),
            returns=returns.copy(),
            actions=actions.copy(),
            payload=payload,
        )

    def name(self, row: int) -> str:
        """Return what messages call an environment."""
        return f"environment {self.spec.id!r}, index {self.environments[row]}"

    def when(self, row: int) -> str:
        """Return where in its run an environment is."""
        return f"step {self.length(row)} of episode {self.episodes[row]}"

    def moment(self, row: int) -> Moment:
        """Return the same with all that repeats it."""
        length = self.length(row)
        if self._log is None or self.episodes[row] < 0:
            return Moment(self.environments[row])
        kept = self._log.last(length)
        actions = kept[:, row].astype(self._actions_dtype) if length else None
        complete = len(kept) == length
        return Moment(self.environments[row], self.episodes[row], self.seeds[row], actions, complete)

    def note(self, row: int, doing: str) -> str:
        """Return where an environment is and how to repeat it; `doing` is "step", "reset" or "__init__"."""
        return note_on(self.spec, self.moment(row), doing, self.length(row))

    def put_back(self, steps: int, episodes: np.ndarray, seeds: np.ndarray, lengths: np.ndarray) -> None:
        """Go on from another place."""
        self.steps = steps
        self.episodes, self.seeds = episodes.tolist(), seeds.tolist()
        self.begins = [steps - length for length in lengths.tolist()]
