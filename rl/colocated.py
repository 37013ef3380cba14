"""A training whose environments are stepped where it is learned, as the driver sees it.

The actor does not wait for the driver between two iterations: what the next one is asked with are references to what
this one will return, and its clock is known. So the driver asks for the next before it waits for this one, and tells of
this one (hashes, files, callbacks) while the actor makes the next.

    driver   ask 1, ask 2 · wait for 1 · tell of 1 · ask 3 · wait for 2 · tell of 2 …
    actor    1 ─────────────────────────┬ 2 ────────────────────────────┬ 3 …

See `ahead`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..envs import RecoveryChoice, choose_group_recovery
from ..runtime import ObjectRef, exceptions, get
from .actors import LearnerRun
from .ahead import Ahead, looks_ahead, place_of
from .clock import Clock
from .collect.channel import Channel
from .collect.rollout_stats import RolloutStats
from .collect.worker import GroupProgress
from .colocated_actor import ColocatedActor
from .initial_weights import named_weights
from .learn.log import LearnerInput, Piece
from .learner_handle import LearnerHandle, Update, following
from .run import CLOSE_SECONDS, give_up, note_on_deaths
from .training_state import IterationOutcome, TrainingState, Weights

_COMPUTED = ("time/update_seconds", "time/environment_seconds", "time/inference_seconds")


@dataclass(frozen=True)
class Cycles(LearnerInput):
    """What the actor is given: no rollouts, which it makes itself, but so many cycles, of so many steps each in all
    groups together, and of `timesteps` environment steps in all."""

    cycles: int
    steps: int
    timesteps: int


def led_to(update: Update) -> TrainingState:
    """What is known of the state after an update before it is made."""
    state, given = update.state, update.given
    assert isinstance(given, Cycles)
    refs = zip(state.groups, update.led_to[3:-2], strict=True)
    return replace(
        state,
        iteration=state.iteration + 1,
        timesteps=state.timesteps + given.timesteps,
        weights=Weights(state.version + given.cycles, update.led_to[0]),
        groups=tuple(GroupProgress(group.rollouts + given.cycles, ref) for group, ref in refs),
    )


class ColocatedHandle(LearnerHandle):
    """The actor; `LearnerHandle` has the rest."""

    _made: ObjectRef | None = None
    """The snapshot with which the last iteration that is known has ended."""

    def start(self, state: TrainingState, given: LearnerInput, snapshot: bool) -> Update:
        """As `LearnerHandle.start`; what is asked for ahead already goes on."""
        ahead = self.ahead.take((given, place_of(state)))
        if ahead is None:
            return super().start(state, given, snapshot)
        self._updating = replace(ahead, state=state)
        return self._updating

    def start_ahead(self, update: Update) -> None:
        """Ask for an update from where the one that is going on will lead."""
        asked = self._ask(update)
        self.ahead.hold((asked.given, place_of(asked.state)), asked, [asked.metrics], asked.led_to[:-1])

    @cached_property
    def ahead(self) -> Ahead[Update]:
        """What was asked for ahead."""
        return Ahead()

    def wait(self, update: Update) -> tuple[Update, dict[str, float]]:
        """As `LearnerHandle.wait`."""
        update, metrics = super().wait(update)
        self._made = update.led_to[1]
        return update, metrics

    def snapshot(self, state: TrainingState) -> tuple[dict[str, Any], tuple[Piece, ...]]:
        """As `LearnerHandle.snapshot`; the iteration has ended with one, and by now the actor may be further."""
        log = state.learner
        if log.snapshot is None or log.snapshot != self._made:
            return super().snapshot(state)
        return get(log.snapshot), log.transitions

    def close(self) -> None:
        """As `LearnerHandle.close`."""
        self.ahead.give_up(0.2)
        super().close()

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

    _seconds = math.inf
    """That the last iteration took to compute."""

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
            "recovery": self._recovery,
            "channel": self._channel,
        }
        learner: tuple[Any, ...] = (*own, self._model_spec, run, named_weights(self._model_spec, run))
        return ColocatedHandle(ColocatedActor, (worker, learner), run, self.deaths)

    @cached_property
    def _recovery(self) -> RecoveryChoice:
        return choose_group_recovery(self.settings.vectorization, self._spec, self.settings.seed)

    def initial_state(self) -> TrainingState:
        """With all simulation groups at their beginning."""
        return replace(super().initial_state(), groups=(GroupProgress(),) * self.settings.groups)

    def iterate(self, state: TrainingState, clock: Clock, cycles_of: Callable[[Clock], int]) -> IterationOutcome:
        """One iteration from `state`, which `clock` tells the time of; `cycles_of` says how many cycles one has that
        begins then."""
        given = self._given(clock, cycles_of)
        update = self.learner.start(state, given, True)
        following_clock = clock.after(given.timesteps)
        if following_clock.remaining and looks_ahead(self.settings, self._recovery, self._seconds):
            self.learner.start_ahead(Update(led_to(update), self._given(following_clock, cycles_of), True))
        try:
            update, metrics = self.learner.wait(update)
            told: RolloutStats = get(update.led_to[-2])
        except BaseException as error:  # also Ctrl-C: it goes on to the user
            self.learner.ahead.forget()
            if isinstance(error, exceptions.ActorUnavailableError):
                note_on_deaths(error, "rollout", self._spec.id)
            raise
        log = following(update, update.led_to[:3], metrics, given.cycles)
        outcome = self._after(state, log, given.timesteps, led_to(update).groups, told.episodes)
        every = {**outcome.metrics, **told.metrics}
        self._seconds = sum(every[name] for name in _COMPUTED)
        return replace(outcome, metrics=every, digests=told.digests)

    def _given(self, clock: Clock, cycles_of: Callable[[Clock], int]) -> Cycles:
        cycles, steps, run = cycles_of(clock), self._algorithm.rollout_steps(self.config), self.settings
        return Cycles((), clock, cycles, steps * run.groups, cycles * steps * run.n_envs)

    def end_actors(self) -> None:
        """Let the actor close its environments, for 10 s at most, and end it."""
        if "learner" in vars(self):  # what a cached property made
            self._channel.close()
            self.learner.ahead.forget()
            give_up([self.learner.actor.close.remote()], CLOSE_SECONDS)
        super().end_actors()
