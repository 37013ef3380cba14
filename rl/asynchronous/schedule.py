"""The schedule of an asynchronous training: which rollout met which weights, in which order.

Given the settings, it is all that the weights depend on: a rollout follows from its group's state before and the
weights that acted, an update from the state of the learner before and the rollouts in their order. So a training that
follows a recorded schedule has the same weights, bit for bit, on any number of workers.

A run keeps it in `schedule.jsonl`, one line an update:

    {"iteration": 7, "timesteps": 3840, "total_timesteps": 500000,
     "learned": [[group, rollout, version], …], "dropped": […]}

`timesteps` is the clock before the update, and that of rollouts which begin under the weights of version iteration − 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ...runtime import InputError
from ..clock import Clock


class Trajectory(NamedTuple):
    """A rollout of one simulation group."""

    group: int
    rollout: int
    """Number of it among the group's, from 0."""
    version: int
    """Updates that the weights which act have seen."""


@dataclass(frozen=True)
class Choice:
    """What one update learns from."""

    learned: tuple[Trajectory, ...]
    """In the order in which they lie side by side."""
    dropped: tuple[Trajectory, ...] = ()
    """What has been given up since the update before: it counts as experienced, and nothing is learned from it."""


class Pacing(Protocol):
    """Decides when rollouts begin and what is learned from: as they come (`Admission`), or as recorded (`Recorded`)."""

    @property
    def waiting(self) -> int:
        """Whole rollouts that have not been chosen yet."""

    def begin(self) -> list[Trajectory]:
        """Rollouts that begin now, under the newest weights; of each group in order."""

    def arrived(self, trajectory: Trajectory) -> Trajectory | None:
        """Note that a rollout is whole; returns one that nothing will be learned from any more, if there is one."""

    def choose(self) -> Choice | None:
        """What the learner, which is idle, learns from next; None: nothing yet."""

    def learned(self, sampled: int) -> None:
        """Note that the update is done, for which so many rows were drawn from a replay buffer: there is one more
        version."""

    def needs(self, trajectory: Trajectory) -> bool:
        """Whether a choice may still name a rollout."""


@dataclass(frozen=True)
class Record:
    """A line of `schedule.jsonl`."""

    iteration: int
    """Number of the update, from 1."""
    clock: Clock
    """Before it."""
    choice: Choice

    def to_json(self) -> dict[str, Any]:
        """The line as JSON-able values."""
        return {
            "iteration": self.iteration,
            "timesteps": self.clock.timesteps,
            "total_timesteps": self.clock.total_timesteps,
            "learned": [list(trajectory) for trajectory in self.choice.learned],
            "dropped": [list(trajectory) for trajectory in self.choice.dropped],
        }

    @staticmethod
    def from_json(line: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`; InputError if it is damaged."""
        try:
            learned, dropped = (
                tuple(Trajectory(*(_count(part) for part in parts)) for parts in line[name])
                for name in ("learned", "dropped")
            )
            clock = Clock(_count(line["timesteps"]), _count(line["total_timesteps"]))
            return Record(_count(line["iteration"]), clock, Choice(learned, dropped))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"a line of schedule.jsonl is damaged: {str(line)[:80]}. Restore the file") from None


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


class Recorded:
    """Follows records, which begin with the first update and leave none out; InputError if they do, or if a group's
    rollouts are not in order."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records, self._version = records, 0
        uses: Counter[Trajectory] = Counter()
        self._beginnings: dict[int, list[Trajectory]] = {}
        following: Counter[int] = Counter()
        for index, record in enumerate(records):
            if record.iteration != index + 1:
                raise InputError(
                    f"schedule.jsonl goes from update {index} on with {record.iteration}: it is not whole, so it "
                    "cannot be followed"
                )
            for trajectory in (*record.choice.dropped, *record.choice.learned):
                if trajectory not in uses:
                    self._check(trajectory, following[trajectory.group], record.iteration)
                    following[trajectory.group] += 1
                    self._beginnings.setdefault(trajectory.version, []).append(trajectory)
                uses[trajectory] += 1
        self._uses = uses

    @staticmethod
    def _check(trajectory: Trajectory, rollout: int, iteration: int) -> None:
        if trajectory.rollout != rollout or trajectory.version >= iteration:
            raise InputError(
                f"update {iteration} of schedule.jsonl takes rollout {trajectory.rollout} of group {trajectory.group} "
                f"under version {trajectory.version}, but next comes rollout {rollout}, under one before {iteration}"
            )

    @property
    def waiting(self) -> int:
        """All that are still to be chosen."""
        return self._uses.total()

    def begin(self) -> list[Trajectory]:
        """Those that began under these weights and were used."""
        return self._beginnings.pop(self._version, [])

    def arrived(self, trajectory: Trajectory) -> Trajectory | None:
        """Nothing: what was dropped is known."""
        return None

    def choose(self) -> Choice | None:
        """The update that was made, whether its rollouts are whole or not."""
        return self._records[self._version].choice

    def learned(self, sampled: int) -> None:
        """Go on to the next."""
        choice = self._records[self._version].choice
        self._uses.subtract((*choice.dropped, *choice.learned))
        self._version += 1

    def needs(self, trajectory: Trajectory) -> bool:
        """Whether a later update takes it."""
        return self._uses[trajectory] > 0


def from_lines(lines: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Records of the lines of a schedule."""
    return [Record.from_json(line) for line in lines]
