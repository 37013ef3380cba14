"""Rollouts of agents that act one after the other.

    step of the group      0    1    2    3    4    5              rollout of one row
    acts                   x         x              x       ──▶    action 0, action 2     (5 is carried into the next)
    reward of the row      0    1    0    0    2    0              1,        2

A row's transition goes from one of its turns to its next: what others' turns earn it, or end for it, is its last
action's. So its actions stand close together, first things first, and what is left of the rows are no transitions. An
action whose next turn has not come when the rollout ends waits for the next rollout (`carried`), whole, so that no
reward is lost and no value is asked for where it is somebody else's turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...envs import GroupStep, codec
from ..collect.records import arrays_of, finish_rollout
from ..data.batch import Batch
from ..data.columns import rollout_columns
from ..data.rollout import Rollout
from ..data.tree import as_array, tree_map
from ..declaration import Collecting
from ..models.spec import ModelSpec

Carried = Mapping[str, np.ndarray]
"""[N, …] each, of the last action of each row: `pending`, whether it waits; what it earned so far; its columns; and
what was remembered before it."""
_MEMORY = "memory/"


class TurnRecorder:
    """Writes the steps of a rollout down as turns; as `Recorder`. Index 0 of what it keeps is what was carried."""

    def __init__(
        self, algorithm: type[Collecting], spec: ModelSpec, steps: int, size: int, carried: Carried | None
    ) -> None:
        self._algorithm, self._spec = algorithm, spec
        columns = rollout_columns(spec.observation_space, spec.action_space, resets=True)
        self._columns: dict[str, Any] = algorithm.records(spec) | columns
        shape = steps + 1, size
        self._acts, self._terminated, self._truncated = (np.zeros(shape, np.bool_) for _ in range(3))
        self._earned = np.zeros(shape)
        self._kept: dict[str, np.ndarray] = {}
        self._final: dict[tuple[int, int], tuple[Any, Any]] = {}
        if carried is not None:
            self._acts[0], self._earned[0] = carried["pending"], carried["rewards"]
            for name in carried:
                if name not in ("pending", "rewards"):
                    self._keep(0, name, carried[name])

    def _keep(self, index: int, name: str, values: np.ndarray) -> None:
        if name not in self._kept:
            self._kept[name] = np.zeros((*self._acts.shape, *values.shape[1:]), values.dtype)
        self._kept[name][index] = values

    def remember(self, t: int, memory: Any) -> None:
        """Write down what is remembered before step t."""
        for name, leaf in arrays_of(memory or {}).items():
            self._keep(t + 1, _MEMORY + name, leaf)

    def acted(self, t: int, observations: np.ndarray, acted: Any) -> np.ndarray:
        """Write down what the model saw and chose at step t; returns the actions."""
        actions = as_array(acted.actions)
        self._keep(t + 1, "observations", observations)
        self._keep(t + 1, "actions", actions)
        for name, values in acted.records.items():
            self._keep(t + 1, name, as_array(values))
        return actions

    def stepped(self, t: int, step: GroupStep, memory: Any) -> None:
        """Write down what came of it; `memory` is that after the step, before anything is forgotten."""
        assert step.resets is not None
        self._acts[t + 1] = ~step.resets
        self._earned[t + 1] = step.rewards
        self._terminated[t + 1] = step.terminations
        self._truncated[t + 1] = step.truncations & ~step.terminations
        ended = np.flatnonzero(step.terminations | step.truncations).tolist()
        remembered = arrays_of(memory or {}) if ended else {}
        for row in ended:
            self._final[t + 1, row] = step.final_observations[row], tree_map(lambda leaf, i=row: leaf[i], remembered)

    def finish(
        self, model: Any, config: Any, version: int, *, seen: np.ndarray, turn: np.ndarray, memory: Any
    ) -> tuple[Rollout, Carried]:
        """The whole rollout, and what the next one carries on.

        `seen` is what each row sees now, `turn` [N] whether it is its turn, `memory` what is remembered.
        """
        rows, size = self._acts.shape
        now = seen, arrays_of(memory or {})
        batch = Batch.allocate(self._columns, rows, size)
        for name in batch:
            batch[name][...] = codec(self._spec.observation_space).filler() if name == "observations" else 0
        batch["resets"][...], batch["truncations"][...] = True, True
        finals: list[tuple[int, Any, Any]] = []
        places = np.full((rows, size), -1)  # of each action that is complete
        pending, earned, begun = np.zeros(size, np.bool_), np.zeros(size), np.zeros(size, np.int64)
        for row in range(size):
            turns = self._turns(row)
            if turns and not turns[-1].over and not turn[row]:
                last = turns.pop()
                pending[row], earned[row], begun[row] = True, last.reward, last.start
            for place, own in enumerate(turns):
                places[own.start, row], at = place, (place, row)
                batch["rewards"][at], batch["resets"][at] = own.reward, False
                batch["terminations"][at], batch["truncations"][at] = own.terminated, own.truncated
                if own.over or place == len(turns) - 1:
                    finals.append((place * size + row, *self._after(own, row, pending[row], int(begun[row]), now)))
        self._copy(batch, places)
        rollout = Rollout(batch, self._finals_of(finals, now), version, self._memories_of(places))
        carried = {name: kept[begun, np.arange(size)] for name, kept in self._kept.items()}
        carried |= {"pending": pending, "rewards": earned}
        return finish_rollout(self._algorithm, model, rollout, config), carried

    def _turns(self, row: int) -> list[_Turn]:
        """From each action of a row to its next one, or to the end of its part in the episode."""
        starts, count = np.flatnonzero(self._acts[:, row]).tolist(), len(self._acts)
        found = []
        for start, stop in itertools.pairwise([*starts, count]):
            over = np.flatnonzero((self._terminated | self._truncated)[start:stop, row])
            last = start + int(over[0]) if len(over) else stop - 1
            reward = float(self._earned[start : last + 1, row].sum())
            ends = bool(self._terminated[last, row]), bool(self._truncated[last, row])
            found.append(_Turn(start, last, reward, *ends))
        return found

    def _after(self, turn: _Turn, row: int, is_pending: bool, begun: int, now: tuple[Any, Any]) -> tuple[Any, Any]:
        """What a row saw and remembered after a turn that ended something, or was the last that is complete."""
        if turn.over:
            return self._final[turn.last, row]
        if not is_pending:
            return now[0][row], {name: leaf[row] for name, leaf in now[1].items()}
        memory = {name.removeprefix(_MEMORY): kept for name, kept in self._kept.items() if name.startswith(_MEMORY)}
        return self._kept["observations"][begun, row], {name: leaf[begun, row] for name, leaf in memory.items()}

    def _copy(self, batch: Batch, places: np.ndarray) -> None:
        """Put what was kept of complete actions where they are in the rollout."""
        starts, rows = np.nonzero(places >= 0)
        for name, kept in self._kept.items():
            if not name.startswith(_MEMORY):
                batch[name][places[starts, rows], rows] = kept[starts, rows]

    def _finals_of(self, finals: list[tuple[int, Any, Any]], now: tuple[Any, Any]) -> Batch:
        finals.sort(key=lambda final: final[0])
        rows = np.array([row for row, _, _ in finals], np.int64)
        observations = np.empty((len(finals), *now[0].shape[1:]), now[0].dtype)
        for index, (_, observation, _) in enumerate(finals):
            observations[index] = observation
        columns: dict[str, Any] = {"rows": rows, "observations": observations}
        if now[1]:
            columns["memory"] = {
                name: np.array([memory[name] for _, _, memory in finals], leaf.dtype).reshape(-1, *leaf.shape[1:])
                for name, leaf in now[1].items()
            }
        return Batch(columns)

    def _memories_of(self, places: np.ndarray) -> Batch | None:
        """What was remembered before the actions that begin sequences."""
        length, (rows, size) = self._spec.sequence_length, places.shape
        starts, of_rows = np.nonzero((places >= 0) & (places % length == 0))
        memories = {}
        for name, kept in self._kept.items():
            if name.startswith(_MEMORY):
                found = np.zeros((-(-rows // length), size, *kept.shape[2:]), kept.dtype)
                found[places[starts, of_rows] // length, of_rows] = kept[starts, of_rows]
                memories[name.removeprefix(_MEMORY)] = found
        return Batch({"memory": memories}, 2) if memories else None


@dataclass(frozen=True)
class _Turn:
    """An action and what came of it: `start` is its index, `last` that of the last step that counts for it."""

    start: int
    last: int
    reward: float
    terminated: bool
    truncated: bool

    @property
    def over(self) -> bool:
        """Whether the agent's part in the episode ended."""
        return self.terminated or self.truncated
