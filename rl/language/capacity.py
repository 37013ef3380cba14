"""Which rollouts begin and which are learned from, where generators run ahead of the learner by a bounded number of
updates: a state machine without I/O.

Update u learns from the rollouts u·n … (u + 1)·n − 1 in the order in which they began, n of them; number i may begin as
soon as version v of the weights is there with i < (v + 1 + max_lag)·n. So the weights that sampled are never more than
`max_lag` updates behind those that learn, however long a rollout takes; nothing is thrown away; what has begun and was
not learned from is never more than (max_lag + 1)·n. With `max_lag` 0 generators and learner take turns. (The rule is
that of AReaL, Fu et al., 2025, arXiv 2505.24298; there the learner takes what comes first, so only how far generation
runs ahead is bounded.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..asynchronous.groups import Groups
from ..asynchronous.schedule import Choice, Trajectory


class Capacity:
    """Decides for a training whose groups have made so many `rollouts`, and whose weights are of `version`; each update
    learns from `per_update` rollouts."""

    def __init__(self, per_update: int, max_lag: int, rollouts: Sequence[int], version: int) -> None:
        self._per_update = per_update
        self._version, self._left = version, (1 + max_lag) * per_update
        self._groups = Groups(rollouts)
        self._order: deque[Trajectory] = deque()
        self._whole: set[Trajectory] = set()

    @property
    def waiting(self) -> int:
        """Whole rollouts that were not learned from."""
        return len(self._whole)

    def begin(self) -> list[Trajectory]:
        """A rollout of each idle group, as far as the bound allows."""
        begun = self._groups.begin(self._version, self._may_begin)
        self._order.extend(begun)
        return begun

    def _may_begin(self) -> bool:
        """Asked before each rollout that begins; what has begun by then counts."""
        if self._left == 0:
            return False
        self._left -= 1
        return True

    def arrived(self, trajectory: Trajectory) -> None:
        """Note that a rollout is whole."""
        self._groups.arrived(trajectory)
        self._whole.add(trajectory)

    def choose(self) -> Choice | None:
        """The next rollouts in the order in which they began, once all of them are whole."""
        following = list(self._order)[: self._per_update]
        if len(following) < self._per_update or not self._whole.issuperset(following):
            return None
        for trajectory in following:
            self._order.popleft()
            self._whole.remove(trajectory)
        return Choice(tuple(following))

    def learned(self, sampled: int) -> None:
        """Count the version: as many rollouts more may begin."""
        self._version += 1
        self._left += self._per_update

    def needs(self, trajectory: Trajectory) -> bool:
        """Whether it was not learned from yet."""
        return trajectory in self._order
