"""Which rollouts begin, which are learned from, and which are given up: a state machine without I/O.

    begin()   every group that is idle, under the newest weights        arrived()   into the queue, oldest first
    choose()  the oldest rollouts of the queue, none more than `max_lag` versions old

Workers do not wait for the learner: where the queue is full, the oldest rollout is dropped (or, with `waits`, groups
stay idle until there is room). The learner does not wait for a slow worker: it takes what has come. How far the weights
that acted may be behind those that learn is bounded where a rollout is chosen, so it holds for whatever happens before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from .groups import Groups
from .schedule import Choice, Trajectory


@dataclass(frozen=True)
class Limits:
    """What `Admission` keeps to."""

    per_update: int
    """Rollouts that an update learns from."""
    queue: int
    """Rollouts that may wait to be learned from, at least `per_update`."""
    max_lag: int
    """Updates that may lie between the weights that acted and those that learn."""
    waits: bool = False
    """Whether groups stay idle, where what waits and what is being made would fill the queue; else the oldest goes."""
    uses: int = 1
    """Updates that may learn from a rollout."""
    batches: int = 1
    """Batches that are kept for further updates."""


@dataclass
class _Batch:
    trajectories: tuple[Trajectory, ...]
    uses: int


class Admission:
    """Decides for a training of which each group has made so many `rollouts`, and whose weights are of `version`."""

    def __init__(self, limits: Limits, rollouts: Sequence[int], version: int) -> None:
        self._limits, self._version = limits, version
        self._groups = Groups(rollouts)
        self._waiting: deque[Trajectory] = deque()
        self._dropped: list[Trajectory] = []
        self._batches: deque[_Batch] = deque()

    @property
    def waiting(self) -> int:
        """Rollouts in the queue."""
        return len(self._waiting)

    def begin(self) -> list[Trajectory]:
        """A rollout of each idle group, that which has been idle for longest first."""
        return self._groups.begin(self._version, self._has_room)

    def arrived(self, trajectory: Trajectory) -> Trajectory | None:
        """Queue a whole rollout; returns the oldest if that had to give way."""
        self._groups.arrived(trajectory)
        self._waiting.append(trajectory)
        if len(self._waiting) <= self._limits.queue:
            return None
        oldest = self._waiting.popleft()
        self._dropped.append(oldest)
        return oldest

    def choose(self) -> Choice | None:
        """The oldest rollouts of the queue, if there are enough; else a batch that may be used again, least used
        first."""
        self._drop_old()
        if len(self._waiting) >= self._limits.per_update:
            self._batches.append(_Batch(tuple(self._waiting.popleft() for _ in range(self._limits.per_update)), 0))
            while len(self._batches) > self._limits.batches:
                self._batches.popleft()
            chosen = self._batches[-1]
        elif self._batches:
            chosen = min(self._batches, key=lambda batch: batch.uses)
        else:
            return None
        chosen.uses += 1
        if chosen.uses == self._limits.uses:
            self._batches.remove(chosen)
        dropped, self._dropped = tuple(self._dropped), []
        return Choice(chosen.trajectories, dropped)

    def learned(self, sampled: int) -> None:
        """Count the version."""
        self._version += 1

    def needs(self, trajectory: Trajectory) -> bool:
        """Whether it is being made, waits, is kept, or was dropped and not told yet."""
        kept = (batch.trajectories for batch in self._batches)
        return any(trajectory in those for those in (self._groups.begun, self._waiting, self._dropped, *kept))

    def _has_room(self) -> bool:
        limits = self._limits
        return not limits.waits or len(self._groups.begun) + len(self._waiting) < limits.queue

    def _drop_old(self) -> None:
        oldest = self._version - self._limits.max_lag
        self._dropped += [trajectory for trajectory in self._waiting if trajectory.version < oldest]
        self._waiting = deque(trajectory for trajectory in self._waiting if trajectory.version >= oldest)
        fresh = (batch for batch in self._batches if min(each.version for each in batch.trajectories) >= oldest)
        self._batches = deque(fresh)
