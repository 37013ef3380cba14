"""Which simulation groups are idle, and which rollouts are being made: what all ways of admission count alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from .schedule import Trajectory


class Groups:
    """Groups that have made so many `rollouts` each; all are idle at the beginning."""

    def __init__(self, rollouts: Sequence[int]) -> None:
        self._next = list(rollouts)
        self._idle = deque(range(len(rollouts)))
        self.begun: set[Trajectory] = set()

    def begin(self, version: int, may_begin: Callable[[], bool]) -> list[Trajectory]:
        """A rollout under weights of `version` of each idle group, that which has been idle for longest first, as long
        as `may_begin`, asked before each, allows it."""
        begun = []
        while self._idle and may_begin():
            group = self._idle.popleft()
            trajectory = Trajectory(group, self._next[group], version)
            self._next[group] += 1
            self.begun.add(trajectory)
            begun.append(trajectory)
        return begun

    def arrived(self, trajectory: Trajectory) -> None:
        """Count a whole rollout: its group is idle."""
        self.begun.remove(trajectory)
        self._idle.append(trajectory.group)
