"""Which rollouts begin, and when the learner draws from its replay buffer: a state machine without I/O.

Nothing is queued for long: an update begins with storing all that has come. Until the first minibatch is drawn, the
buffer fills and nothing waits; from then on a `RateLimit` keeps draws and inserts in proportion, where one is given:
groups stay idle where the learner is slow, the learner does where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..data.rate_limit import RateLimit
from .groups import Groups
from .schedule import Choice, Trajectory


@dataclass(frozen=True)
class ReplayLimits:
    """What `ReplayAdmission` keeps to."""

    rate: RateLimit | None
    """Draws and inserts, in environment steps; None: as they come."""
    steps: int
    """Environment steps of a rollout."""
    max_lag: int | None
    """Updates that may lie between the weights that acted and those of when a rollout is stored; None: any number."""


class ReplayAdmission:
    """Decides for a training of which each group has made so many `rollouts`, and whose weights are of `version`."""

    def __init__(self, limits: ReplayLimits, rollouts: Sequence[int], version: int) -> None:
        self._limits, self._version = limits, version
        self._groups = Groups(rollouts)
        self._waiting: list[Trajectory] = []
        self._dropped: list[Trajectory] = []
        self._filling: set[Trajectory] | None = None  # what had begun before the first draw; None until it
        self._arrived = 0  # steps of what has begun, and come, since
        self._sampled = 0

    @property
    def waiting(self) -> int:
        """Rollouts that are to be stored."""
        return len(self._waiting)

    def begin(self) -> list[Trajectory]:
        """A rollout of each idle group, that which has been idle for longest first, as long as the limit allows it."""
        return self._groups.begin(self._version, self._may_begin)

    def arrived(self, trajectory: Trajectory) -> Trajectory | None:
        """Keep a whole rollout until the next update; none has to give way."""
        self._groups.arrived(trajectory)
        self._waiting.append(trajectory)
        self._arrived += self._steps_of([trajectory])
        return None

    def choose(self) -> Choice | None:
        """All that has come, perhaps nothing, where minibatches may be drawn; to fill the buffer, what is there."""
        self._drop_old()
        rate = self._limits.rate
        if self._filling is None:
            may = bool(self._waiting)
        else:
            may = rate is None or rate.may_sample(self._arrived, self._sampled)
        if not may:
            return None
        chosen = Choice(tuple(self._waiting), tuple(self._dropped))
        self._waiting, self._dropped = [], []
        return chosen

    def learned(self, sampled: int) -> None:
        """Count the version and what was drawn; proportions count from the first draw on, without what had begun."""
        self._version += 1
        if self._filling is not None:
            self._sampled += sampled
        elif sampled:
            self._filling = {*self._groups.begun, *self._waiting}

    def needs(self, trajectory: Trajectory) -> bool:
        """Whether it is being made, waits, or was dropped and not told yet."""
        return any(trajectory in those for those in (self._groups.begun, self._waiting, self._dropped))

    def _may_begin(self) -> bool:
        rate = self._limits.rate
        if rate is None or self._filling is None:
            return True
        return rate.may_insert(self._arrived + self._steps_of(self._groups.begun), self._sampled)

    def _steps_of(self, trajectories: Iterable[Trajectory]) -> int:
        """Of those that count: none while the buffer fills."""
        if self._filling is None:
            return 0
        return sum(self._limits.steps for trajectory in trajectories if trajectory not in self._filling)

    def _drop_old(self) -> None:
        if self._limits.max_lag is None:
            return
        oldest = self._version - self._limits.max_lag
        old = [trajectory for trajectory in self._waiting if trajectory.version < oldest]
        self._waiting = [trajectory for trajectory in self._waiting if trajectory.version >= oldest]
        self._dropped += old
        self._arrived -= self._steps_of(old)  # what is dropped is not inserted
