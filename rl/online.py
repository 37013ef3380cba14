"""What learns from what it does: rollouts of all groups under the same weights, then an update by the learner.

rollout workers ────rollouts────▶ learner          the driver passes references between them,
      ▲                              │             and reads only small statistics and metrics
      └───────────weights────────────┘

Where one worker would step all environments and one learner learn, a single actor does both (see `colocated`).
"""

from __future__ import annotations

from typing import Any, Generic

from ..envs import Endpoint, Inspection
from ..runtime import InputError, human_bytes, machine_memory
from .actors import ActorLearnerRun
from .algorithm import Algorithm, Config
from .clock import Clock
from .colocated import ColocatedRun
from .data.columns import rollout_columns
from .data.tree import leaves
from .declaration import Collecting, Learning
from .models.joint_spec import JointSpec, learning_specs
from .run import Run
from .simulators import inspect_simulators
from .synchronous import SynchronousRun
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

    def check_spaces(self) -> None:
        """Raise InputError, with the arithmetic, if what an iteration plays cannot fit into memory."""
        columns = (
            rollout_columns(spec.observation_space, spec.action_space) for spec in learning_specs(self.model_spec)
        )
        row = sum(column.nbytes for own in columns for _, column in leaves(dict(own)))
        steps, run, there = self.rollout_steps(self.config), self.run, machine_memory()
        if steps * run.n_envs * row > there:
            raise InputError(
                f"n_envs is {run.n_envs:,}, and an iteration has {steps:,} steps of each: at {row:,} bytes a step they "
                f"take {human_bytes(steps * run.n_envs * row)}, and this machine has {human_bytes(there)}. Choose "
                "fewer environments, or fewer steps"
            )

    def make_run(self) -> Run:
        """One actor that acts and learns, where one worker would step all environments and one learner learn; else
        rollout workers and learners."""
        run = self.run
        alone = min(run.workers, run.groups) == 1 and run.most_learners == 1
        if alone and run.listen is None and not isinstance(self.model_spec, JointSpec):
            return ColocatedRun(**self.run_options())
        return SynchronousRun(**self.run_options())

    def training_step(self, run: Any, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration: all groups act under the weights of `state`, then the learner updates them."""
        if isinstance(run, ColocatedRun):
            return run.iterate(state, clock, lambda _: 1)
        outcome: IterationOutcome = run.iterate(state, clock)
        return outcome
