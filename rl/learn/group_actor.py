"""The learner actor of a group: a learner as it would be alone, and what it has for the others while they update.

Each of a group holds the whole state and reads the same rollouts; only gradients are divided (see `team`). An update is
asked of all of them; what it led to is asked of the first that is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...runtime import ObjectRef, method
from ..chaos import Death
from ..clock import Clock
from ..models.layout import ParameterLayout
from .log import LearnerLog
from .lost import StateLostError
from .mailbox import Key, Mailbox
from .shards import alone
from .team import Membership, Team
from .world import World

EXCHANGE = "exchange"
"""Concurrency group of what other learners ask."""


class GroupLearnerActor:
    """Actor class; `kind` makes the learner of `arguments`. To be made with `concurrency_groups`, of
    which EXCHANGE is one."""

    def __init__(self, kind: Callable[..., Any], *arguments: Any) -> None:
        self._own = kind(*arguments)
        self._mailbox, self._world = Mailbox(), World()
        self._led_to: tuple[Any, ...] = ()
        self._at = -1

    def describe(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """As `LearnerActor.describe`."""
        found: tuple[np.ndarray, ParameterLayout, str] = self._own.describe()
        return found

    def open_world(self) -> str:
        """Make a place where the learners of a world meet; returns its address."""
        return self._world.open()

    def update(
        self,
        rollouts: Sequence[ObjectRef],
        iteration: int,
        clock: Clock,
        snapshot: bool,
        membership: Membership,
        *,
        death: Death | None = None,
    ) -> dict[str, float]:
        """As `LearnerActor.update`, together with the other members; returns the metrics alone."""
        team = Team(membership, self._mailbox)
        self._own.gather_by(team.gradient if membership.world is None else World.gradient)
        try:
            if membership.world is not None:
                cuda = self._own.describe()[2].startswith("cuda")
                self._world.join(membership.world, membership.index, len(membership.members), cuda=cuda)
            if membership.divides:
                self._own.share(team)
            *led_to, metrics = self._own.update(rollouts, iteration, clock, snapshot, death)
        finally:  # also where it fails: the others need not wait
            self._mailbox.end(membership.attempt)
            self._own.gather_by(alone)
        self._led_to, self._at = tuple(led_to), iteration + 1
        return {**metrics, "train/learners": len(team.present)}

    @method(num_returns=4)
    def led_to(self, iteration: int) -> tuple[Any, ...]:
        """What the last update gave beside its metrics, with which iteration `iteration` begins; and True, which is
        there as soon as all of it is. StateLostError if it is another iteration that begins."""
        if self._at != iteration:
            raise StateLostError(f"the learner is at iteration {self._at}, not at {iteration}")
        return (*self._led_to, True)

    @method(num_returns=2)
    def snapshot(self, iteration: int, inserted: int) -> tuple[dict[str, Any], Any]:
        """As `LearnerActor.snapshot`."""
        found: tuple[dict[str, Any], Any] = self._own.snapshot(iteration, inserted)
        return found

    def ask(self, method: str, iteration: int) -> Any:
        """What another method of the learner gives, which is told where it is to stand."""
        return getattr(self._own, method)(iteration)

    def restore(self, log: LearnerLog) -> None:
        """As `LearnerActor.restore`: by itself."""
        self._own.restore(log)

    @method(concurrency_group=EXCHANGE)
    def take(self, key: Key) -> Any:
        """What this learner has for another one, once it is there; None if it never will be."""
        return self._mailbox.take(key)
