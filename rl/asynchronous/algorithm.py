"""The base class of asynchronous algorithms, and the settings that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic

from ...runtime import InputError
from ..actors import ActorLearnerRun
from ..algorithm import Config
from ..clock import Clock
from ..data.rate_limit import RateLimit
from ..off_policy import ReplayConfig
from ..online import OnlineAlgorithm
from ..settings import Derived, Hyperparameters, RunSettings, choice, number
from ..training_state import IterationOutcome, TrainingState
from .admission import Admission, Limits
from .replay_admission import ReplayAdmission, ReplayLimits
from .run import AsynchronousRun


@dataclass(frozen=True, kw_only=True)
class AsynchronousConfig(Hyperparameters):
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

    def limits(self, settings: RunSettings) -> Limits:
        """What the driver keeps to."""
        per_update = self.rollouts_per_update
        queue = 2 * per_update if self.queue_size is None else self.queue_size
        return Limits(per_update=per_update, queue=queue, max_lag=self.max_lag, waits=self.queue_full == "wait")

    def pacing(self, settings: RunSettings, rollouts: Sequence[int], version: int) -> Admission:
        """What decides in a training whose groups have made so many rollouts."""
        return Admission(self.limits(settings), rollouts, version)


@dataclass(frozen=True, kw_only=True)
class AsynchronousReplayConfig(ReplayConfig):
    """Hyperparameters of all whose workers insert into replay shards while their learner draws, those of `ReplayConfig`
    included.

    Raises:
        InputError: a value that cannot work.
    """

    replay_shards: int = number(2, whole=True, at_least=1)
    """Actors that hold the replay memory together; must divide buffer_size."""
    samples_per_insert: float | None = number(None, above=0, optional=True)
    """Transitions drawn for each environment step, on average, of several policies by each; none: workers and learner
    each go at their own speed."""
    samples_tolerance: float | None = number(None, above=0, optional=True)
    """Draws by which that may be exceeded or missed. Default: what all groups insert in two rollouts, and an update."""
    max_lag: int | None = number(None, whole=True, at_least=0, optional=True)
    """Updates that may lie between the weights that acted and those of when a rollout is stored; older ones are
    dropped. Default: none are."""

    def limits(self, settings: RunSettings) -> ReplayLimits:
        """What the driver keeps to. Raises InputError if shards cannot be equal, or inserts and draws could wait for
        each other for ever."""
        if self.buffer_size % self.replay_shards:
            wanted = f"a divisor of buffer_size = {self.buffer_size}"
            raise InputError(f"replay_shards is {self.replay_shards}, but must be {wanted}")
        steps, drawn = self.train_freq * settings.environments_per_group, self.gradient_steps * self.batch_size
        rate = None
        if self.samples_per_insert is not None:
            default = 2 * self.samples_per_insert * steps * settings.groups + drawn
            rate = RateLimit(self.samples_per_insert, self.samples_tolerance or default, insert=steps, sample=drawn)
        return ReplayLimits(rate, steps, self.max_lag)

    def pacing(self, settings: RunSettings, rollouts: Sequence[int], version: int) -> ReplayAdmission:
        """What decides in a training whose groups have made so many rollouts."""
        return ReplayAdmission(self.limits(settings), rollouts, version)


class AsynchronousAlgorithm(OnlineAlgorithm[Config], Generic[Config]):
    """Rollout workers and learner that never wait for each other; a run records what met what, and can be followed.

    `config.pacing` makes what decides when rollouts begin and what is learned from.

    An iteration is one update. A rollout's bits depend on the weights under which it began, so those of a training on
    when each rollout was whole; they are the same only where the schedule is.
    """

    takes_simulators = False
    plays_league: ClassVar[bool] = False  # opponents are drawn for all groups at once

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
