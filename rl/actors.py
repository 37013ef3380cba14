"""The actors of one training, as the driver sees them: rollout workers to collect with, a learner to learn with.

The driver passes references between the actors; it reads the small statistics and metrics, and never a rollout. The
actors start when they are first used.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import runtime
from ..envs import EnvSpec, Episode, choose_recovery
from ..runtime import ObjectRef, exceptions, get
from .clock import Clock
from .collect.channel import Channel
from .collect.worker import GroupProgress, RolloutStats, RolloutWorker
from .declaration import Declaration
from .learn.actor import LearnerActor, LearnerInput, StateLostError
from .models.layout import ParameterLayout
from .models.spec import ModelSpec
from .settings import RunSettings
from .training_state import IterationOutcome, LearnerLog, TrainingState, Weights, extend_window

RETRIES = 10
"""How often a call is repeated whose process died: an environment that always crashes must not be tried for ever."""
# Training repeats calls, from state that it holds; with lineage it would keep all iterations' (DESIGN 2.7).
RECOVERABLE: dict[str, Any] = {"max_restarts": -1, "max_task_retries": RETRIES, "lineage": False}
CLOSE_SECONDS = 10.0
"""How long closing waits for the workers' environments; a worker in a step that does not return is ended then."""
SNAPSHOT_STEPS = 1024
"""Environment steps between two snapshots of the learner, at least; what came since is learned again if it is lost.

A snapshot costs a copy of all its state: next to nothing beside a rollout of 2 048 steps, more than the update itself
where there is one for each step.
"""

logger = logging.getLogger("shoal")


@dataclass(frozen=True)
class Rollouts:
    """References to what all groups collected in one iteration, in group order."""

    rollouts: tuple[ObjectRef, ...]
    groups: tuple[GroupProgress, ...]
    stats: tuple[ObjectRef, ...]
    timesteps: int
    """Environment steps in them."""


@dataclass(frozen=True)
class Update:
    """An update that was asked for, from `state`; references to what it will give."""

    state: TrainingState
    given: LearnerInput
    due: bool
    """Whether a snapshot was asked for."""
    weights: ObjectRef
    snapshot: ObjectRef
    transitions: ObjectRef
    metrics: ObjectRef


class RolloutWorkers:
    """Rollout workers; they restart if their process dies, and repeat what they were doing."""

    def __init__(
        self, algorithm: type[Declaration], config: Any, spec: EnvSpec, model_spec: ModelSpec, run: RunSettings
    ) -> None:
        self._env_id, self._run = spec.id, run
        self._steps = algorithm.rollout_steps(config) * run.n_envs
        if run.workers > run.groups:
            idle = run.workers - run.groups
            logger.warning("%d of %d workers stay idle: there are %d simulation groups", idle, run.workers, run.groups)
        recovery = choose_recovery(spec, run.seed, 0)
        self._channel = Channel()
        worker_class = runtime.remote(RolloutWorker).options(**RECOVERABLE)
        self.actors = [
            worker_class.remote(
                algorithm,
                config,
                spec=spec,
                model_spec=model_spec,
                settings=run,
                recovery=recovery,
                channel=self._channel,
            )
            for _ in range(min(run.workers, run.groups))
        ]
        self._collecting: tuple[ObjectRef, ...] = ()

    def collect(self, state: TrainingState, clock: Clock) -> Rollouts:
        """Start a rollout of every simulation group under the weights of `state`; group g is simulated by worker
        g % workers."""
        collected = [
            self.actors[index % len(self.actors)].collect.remote(
                index, group, state.weights.ref, state.weights.version, clock
            )
            for index, group in enumerate(state.groups)
        ]
        rollouts, groups, stats = zip(*collected, strict=True)
        self._collecting = stats
        progress = (GroupProgress(before.rollouts + 1, ref) for before, ref in zip(state.groups, groups, strict=True))
        return Rollouts(rollouts, tuple(progress), stats, self._steps)

    def results(self, rollouts: Rollouts) -> tuple[list[Episode], dict[str, float]]:
        """Wait for rollouts: the episodes that ended in them, by end step, then environment; and times. Raises what the
        environment raised."""
        try:
            stats: list[RolloutStats] = get(list(rollouts.stats))
        except exceptions.ActorUnavailableError as error:
            error.add_note(
                f"A rollout worker died {RETRIES + 1} times in the same rollout of environment {self._env_id!r}: "
                "the environment, or a library that it uses, seems to end its process. engine='serial' shows where"
            )
            raise
        episodes = [episode for group in stats for episode in group.episodes]
        episodes.sort(key=lambda episode: (episode.end_step, episode.environment))
        return episodes, {
            "time/environment_seconds": sum(group.environment_seconds for group in stats),
            "time/inference_seconds": sum(group.inference_seconds for group in stats),
            "time/restore_seconds": sum(group.restore_seconds for group in stats),
        }

    def close(self) -> None:
        """Let the workers close their environments, for 10 s at most, and end them."""
        self._channel.close()
        for ref in self._collecting:
            runtime.cancel(ref)  # of those that have not begun; one that runs asks the channel now and then
        closed = [actor.close.remote() for actor in self.actors]
        runtime.wait(closed, num_returns=len(closed), timeout=CLOSE_SECONDS)
        for actor in self.actors:
            runtime.kill(actor)


class LearnerHandle:
    """The learner; it restarts if its process dies, and is then brought back to where it was."""

    def __init__(self, algorithm: type[Declaration], config: Any, model_spec: ModelSpec, run: RunSettings) -> None:
        gpus = 1 if run.device != "cpu" and runtime.cluster_resources().get("GPU", 0) >= 1 else 0
        learner_class = runtime.remote(LearnerActor).options(num_gpus=gpus, **RECOVERABLE)
        self.actor = learner_class.remote(algorithm, config, model_spec, run)

    @cached_property
    def description(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """Initial weights (if nothing was learned yet), layout and device."""
        return get(self.actor.describe.remote())

    def start(self, state: TrainingState, rollouts: Rollouts, clock: Clock) -> Update:
        """Let it learn from rollouts; they need not be there yet."""
        given = LearnerInput(rollouts.rollouts, clock)
        due = rollouts.timesteps * (len(state.learner.inputs) + 1) >= SNAPSHOT_STEPS
        return Update(state, given, due, *self.actor.update.remote(given.rollouts, state.iteration, clock, due))

    def finish(self, update: Update) -> tuple[Weights, LearnerLog, dict[str, float]]:
        """Wait for an update: the next weights, the log with it, and metrics. Raises what the update raised."""
        state, given = update.state, update.given
        for _ in range(RETRIES):
            try:
                metrics = get(update.metrics)
                break
            except StateLostError:
                self._restore(state.learner)
                again = self.actor.update.remote(given.rollouts, state.iteration, given.clock, update.due)
                update = Update(state, given, update.due, *again)
        else:
            raise self._lost(state)
        weights = Weights(state.weights.version + 1, update.weights)
        if not update.due:
            return weights, state.learner.after(given), metrics
        inserted, size = int(metrics.get("replay/inserted", 0)), int(metrics.get("replay/size", 0))
        log = state.learner.at(
            state.iteration + 1,
            update.snapshot,
            update.transitions if inserted else None,
            inserted=inserted,
            forgotten=inserted - size,
        )
        return weights, log, metrics

    def snapshot(self, state: TrainingState) -> dict[str, Any]:
        """The learner's own state where `state` stands."""
        for _ in range(RETRIES):
            try:
                return get(self.actor.snapshot.remote(state.iteration))
            except StateLostError:
                self._restore(state.learner)
        raise self._lost(state)

    def _lost(self, state: TrainingState) -> exceptions.ActorUnavailableError:
        return exceptions.ActorUnavailableError(
            f"the learner lost its state {RETRIES} times in iteration {state.iteration + 1}: its process died each "
            "time. Is there enough memory?"
        )

    def _restore(self, log: LearnerLog) -> None:
        boxed = [] if log.snapshot is None else [log.snapshot]
        pieces = [ref for _, ref in log.transitions]
        get(self.actor.restore.remote(log.iteration, boxed, pieces, list(log.inputs)))


class Run:
    """What a training step works with: the actors, made when they are first used."""

    def __init__(
        self,
        *,
        algorithm: type[Declaration],
        config: Any,
        spec: EnvSpec,
        model_spec: ModelSpec,
        settings: RunSettings,
    ) -> None:
        self.config, self.settings = config, settings
        self._algorithm, self._spec, self._model_spec = algorithm, spec, model_spec
        self._closed = False
        # Environments are closed also where nobody closes the training.
        runtime.close_before_shutdown(self)

    @cached_property
    def workers(self) -> RolloutWorkers:
        """The rollout workers."""
        return RolloutWorkers(self._algorithm, self.config, self._spec, self._model_spec, self.settings)

    @cached_property
    def learner(self) -> LearnerHandle:
        """The learner."""
        return LearnerHandle(self._algorithm, self.config, self._model_spec, self.settings)

    def initial_state(self) -> TrainingState:
        """The state before the first iteration."""
        return TrainingState(
            iteration=0,
            timesteps=0,
            weights=Weights(0, runtime.put(self.learner.description[0])),
            groups=(GroupProgress(),) * self.settings.groups,
            learner=LearnerLog(),
            recent=(),
        )

    def learn(self, state: TrainingState, rollouts: Rollouts, clock: Clock) -> IterationOutcome:
        """Let the learner update on rollouts that were made from `state`; what one iteration leads to."""
        update = self.learner.start(state, rollouts, clock)
        episodes, times = self.workers.results(rollouts)  # first: an environment's exception causes all others
        weights, log, metrics = self.learner.finish(update)
        following = TrainingState(
            iteration=state.iteration + 1,
            timesteps=state.timesteps + rollouts.timesteps,
            weights=weights,
            groups=rollouts.groups,
            learner=log,
            recent=extend_window(state.recent, episodes),
        )
        return IterationOutcome(state=following, episodes=episodes, metrics=metrics | times)

    def close(self) -> None:
        """End the actors that were started; a second call does nothing."""
        closed, self._closed = self._closed, True
        if runtime.is_initialized() and not closed:
            started = vars(self)  # what a cached property made
            if "workers" in started:
                started["workers"].close()
            if "learner" in started:
                runtime.kill(started["learner"].actor)
