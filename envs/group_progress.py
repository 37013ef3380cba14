"""Where each environment of a simulation group is: its episode, seed and step, and the actions that led there."""

import numpy as np

from .action_log import ActionLog
from .reproducer import Moment, note_on
from .seeding import episode_seed
from .spec import EnvSpec


class GroupProgress:
    """The place of each environment in the run.

    Attributes:
        spec: what the environments are made from.
        run_seed: seed of the run.
        first_index: logical index of the group's first environment.
        steps: steps that each has taken in the run.
        episodes: index of each one's current episode, from 0; -1 before the first.
        seeds: what its reset got.
        begins: `steps` when it began.
    """

    def __init__(self, spec: EnvSpec, size: int, first_index: int, run_seed: int) -> None:
        self.spec, self.first_index, self.run_seed = spec, first_index, run_seed
        self.steps = 0
        self.episodes, self.seeds, self.begins = [-1] * size, [0] * size, [0] * size
        self._log: ActionLog | None = None
        self._actions_dtype = np.dtype(np.float32)

    def record(self, log: ActionLog, dtype: np.dtype) -> None:
        """Take note of where the last actions are kept, and in which dtype the environments got them."""
        self._log, self._actions_dtype = log, dtype

    def begin_episode(self, row: int) -> int:
        """Go on to the next episode; return its seed."""
        self.episodes[row] += 1
        self.begins[row] = self.steps
        self.seeds[row] = seed = episode_seed(self.run_seed, self.first_index + row, self.episodes[row])
        return seed

    def length(self, row: int) -> int:
        """Return how many steps the current episode has."""
        return self.steps - self.begins[row]

    def name(self, row: int) -> str:
        """Return what messages call an environment."""
        return f"environment {self.spec.id!r}, index {self.first_index + row}"

    def when(self, row: int) -> str:
        """Return where in its run an environment is."""
        return f"step {self.length(row)} of episode {self.episodes[row]}"

    def moment(self, row: int) -> Moment:
        """Return the same with all that repeats it."""
        length = self.length(row)
        if self._log is None or self.episodes[row] < 0:
            return Moment(self.first_index + row)
        kept = self._log.last(length)
        actions = kept[:, row].astype(self._actions_dtype) if length else None
        complete = len(kept) == length
        return Moment(self.first_index + row, self.episodes[row], self.seeds[row], actions, complete)

    def note(self, row: int, doing: str) -> str:
        """Return where an environment is and how to repeat it; `doing` is "step", "reset" or "__init__"."""
        return note_on(self.spec, self.moment(row), doing, self.length(row))

    def put_back(self, steps: int, episodes: np.ndarray, seeds: np.ndarray, lengths: np.ndarray) -> None:
        """Go on from another place."""
        self.steps = steps
        self.episodes, self.seeds = episodes.tolist(), seeds.tolist()
        self.begins = [steps - length for length in lengths.tolist()]
