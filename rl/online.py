"""What learns from what it does: rollouts of all groups under the same weights, then an update by the learner.

rollout workers ────rollouts────▶ learner          the driver passes references between them,
      ▲                              │             and reads only small statistics and metrics
      └───────────weights────────────┘
"""

from __future__ import annotations

from typing import Generic

from ..envs import Endpoint, Inspection
from .actors import ActorLearnerRun
from .algorithm import Algorithm, Config
from .clock import Clock
from .declaration import Collecting, Learning
from .run import Run
from .simulators import inspect_simulators
from .training_state import IterationOutcome, TrainingState


class OnlineAlgorithm(Algorithm[Config], Collecting, Learning, Generic[Config]):
    """Rollout workers and one learner take turns. What each of them does is declared (see `declaration`)."""

    takes_simulators = True

    def _inspect(self) -> Inspection:
        """Check the environment; with `listen`, the spaces of simulators outside."""
        return super()._inspect() if self.run.listen is None else inspect_simulators(self.spec, self.run, self.config)

    @property
    def endpoint(self) -> Endpoint | None:
        """Address and token for simulators outside, which may connect from now on; None without `listen`. Starts what
        they connect to."""
        run = self.actors
        return run.workers.endpoint if isinstance(run, ActorLearnerRun) else None

    def make_run(self) -> Run:
        """Rollout workers and a learner."""
        return ActorLearnerRun(**self.run_options())

    def training_step(self, run: ActorLearnerRun, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration: all groups act under the weights of `state`, then the learner updates them."""
        return run.learn(state, run.workers.collect(state, clock), clock)
