"""The base class of asynchronous algorithms, and the settings that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from ..actors import ActorLearnerRun
from ..algorithm import Config
from ..clock import Clock
from ..online import OnlineAlgorithm
from ..settings import Derived, RunSettings, choice, number, validate
from ..training_state import IterationOutcome, TrainingState
from .admission import Admission, Limits
from .run import AsynchronousRun


@dataclass(frozen=True, kw_only=True)
class AsynchronousConfig:
    """Hyperparameters of all whose workers and learner do not wait for each other.

    Raises:
        InputError: a value that cannot work.
    """

    n_steps: int = number(20, whole=True, at_least=1)
    """Steps per environment and rollout."""
    rollouts_per_update: int = number(
        Derived(1, "half of the simulation groups", lambda run: max(1, run.groups // 2)), whole=True, at_least=1
    )
    """Rollouts, each of one simulation group, that an update learns from: the first that have come."""
    max_lag: int = number(8, whole=True, at_least=0)
    """Updates that may lie between the weights that acted and those that learn; older rollouts are dropped."""
    queue_size: int | None = number(None, whole=True, at_least=1, optional=True)
    """Rollouts that may wait for the learner. Default: twice rollouts_per_update."""
    queue_full: str = choice("drop", "drop", "wait")
    """What follows where the learner is slower than the workers: drop, the oldest rollout goes (workers never wait); or
    wait, no group begins a rollout that would not have room."""

    def __post_init__(self) -> None:
        validate(self)

    def limits(self, settings: RunSettings) -> Limits:
        """What the driver keeps to."""
        per_update = self.rollouts_per_update
        queue = 2 * per_update if self.queue_size is None else self.queue_size
        return Limits(per_update=per_update, queue=queue, max_lag=self.max_lag, waits=self.queue_full == "wait")

    def pacing(self, settings: RunSettings, rollouts: Sequence[int], version: int) -> Admission:
        """What decides in a training whose groups have made so many rollouts."""
        return Admission(self.limits(settings), rollouts, version)


class AsynchronousAlgorithm(OnlineAlgorithm[Config], Generic[Config]):
    """Rollout workers and learner that never wait for each other; a run records what met what, and can be followed.

    `config.pacing` makes what decides when rollouts begin and what is learned from.

    An iteration is one update. A rollout's bits depend on the weights under which it began, so those of a training on
    when each rollout was whole; they are the same only where the schedule is.
    """

    takes_simulators = False

    def make_run(self) -> AsynchronousRun:
        """Rollout workers and a learner that do not wait for each other."""
        return AsynchronousRun(**self.run_options())

    def check(self) -> None:
        """Raise InputError on settings that need all groups at once."""
        super().check()
        self.require(
            not self.run.normalizes_rewards,
            "normalize",
            self.run.normalize,
            "obs or none: the scale of rewards follows each environment through all its steps, in order",
        )

    def training_step(self, run: ActorLearnerRun, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One update, from what has come; rollouts go on meanwhile."""
        assert isinstance(run, AsynchronousRun)
        return run.iterate(state, clock)
