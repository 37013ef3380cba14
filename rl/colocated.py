"""A training whose environments are stepped where it is learned, as the driver sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..envs import choose_group_recovery
from ..runtime import exceptions, get
from .actors import LearnerRun, note_on_deaths
from .clock import Clock
from .collect.channel import Channel
from .collect.rollout_stats import RolloutStats
from .collect.worker import GroupProgress
from .colocated_actor import ColocatedActor
from .initial_weights import named_weights
from .learn.log import LearnerInput
from .learner_handle import LearnerHandle, Update, following
from .run import CLOSE_SECONDS, give_up
from .training_state import IterationOutcome, TrainingState


@dataclass(frozen=True)
class Cycles(LearnerInput):
    """What the actor is given: no rollouts, which it makes itself, but so many cycles, of so many steps each in all
    groups together."""

    cycles: int
    steps: int


class ColocatedHandle(LearnerHandle):
    """The actor; `LearnerHandle` has the rest."""

    def _ask(self, update: Update) -> Update:
        given, state = update.given, update.state
        assert isinstance(given, Cycles)
        of_worker = self._deaths.of_worker(state.iteration, 0, call=0, calls=1, steps=given.cycles * given.steps)
        of_learner = self._deaths.of_learner(state.iteration, updates=given.cycles)
        asked = self.actor.update.options(num_returns=5 + len(state.groups)).remote(
            state.groups, state.version, given.clock, given.cycles, (of_worker, of_learner.get("death"))
        )
        return replace(update, led_to=tuple(asked))


class ColocatedRun(LearnerRun):
    """One actor, which steps all environments and learns."""

    @cached_property
    def learner(self) -> ColocatedHandle:
        """The actor."""
        spec, run, own = self._spec, self.settings, (self._algorithm, self.config)
        self._channel = Channel()
        worker = {
            "algorithm": self._algorithm,
            "config": self.config,
            "spec": spec,
            "model_spec": self._model_spec,
            "settings": run,
            "recovery": choose_group_recovery(run.vectorization, spec, run.seed),
            "channel": self._channel,
        }
        learner: tuple[Any, ...] = (*own, self._model_spec, run, named_weights(self._model_spec, run))
        return ColocatedHandle(ColocatedActor, (worker, learner), run, self.deaths)

    def initial_state(self) -> TrainingState:
        """With all simulation groups at their beginning."""
        return replace(super().initial_state(), groups=(GroupProgress(),) * self.settings.groups)

    def iterate(self, state: TrainingState, clock: Clock, cycles: int) -> IterationOutcome:
        """One iteration of so many cycles from `state`, which `clock` tells the time of."""
        steps = self._algorithm.rollout_steps(self.config)
        given = Cycles((), clock, cycles, steps * self.settings.groups)
        update = self.learner.start(state, given, True)
        try:
            update, metrics = self.learner.wait(update)
        except exceptions.ActorUnavailableError as error:
            note_on_deaths(error, self._spec.id)
            raise
        *_, told_ref, _ = update.led_to
        told: RolloutStats = get(told_ref)
        refs = update.led_to[3:-2]
        groups = tuple(
            GroupProgress(group.rollouts + cycles, ref) for group, ref in zip(state.groups, refs, strict=True)
        )
        led_to = following(update, update.led_to[:3], metrics, cycles)
        timesteps = cycles * steps * self.settings.n_envs
        outcome = self._after(state, led_to, timesteps, groups, told.episodes)
        return replace(outcome, metrics={**outcome.metrics, **told.metrics}, digests=told.digests)

    def end_actors(self) -> None:
        """Let the actor close its environments, for 10 s at most, and end it."""
        if "learner" in vars(self):  # what a cached property made
            self._channel.close()
            give_up([self.learner.actor.close.remote()], CLOSE_SECONDS)
        super().end_actors()
