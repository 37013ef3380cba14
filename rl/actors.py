"""The actors of one training, as the driver sees them: rollout workers to collect with, a learner to learn with.

The driver passes references between the actors; it reads the small statistics and metrics, and never a rollout. The
actors start when they are first used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from .. import runtime
from ..envs import Endpoint, EnvSpec, Episode, RecoveryChoice, choose_group_recovery
from ..runtime import ActorHandle, ObjectRef, exceptions, get
from .agents import JointLearnerActor, JointWorker, initial_weights
from .chaos import Deaths
from .clock import Clock
from .collect.channel import Channel
from .collect.rollout_stats import RolloutStats, stats_of_groups
from .collect.simulators import SimulatorWorker
from .collect.worker import GroupProgress, RolloutWorker
from .data.piece_reader import PieceReader
from .declaration import Collecting
from .initial_weights import named_weights
from .language.generator import Generator
from .league import League, Meeting
from .learn.actor import LearnerActor
from .learn.log import LearnerInput, LearnerLog, Piece
from .learner_group import LearnerGroup, start_learners
from .learner_handle import LearnerHandle, Update, snapshot_is_due
from .models.joint_spec import AnySpec, JointSpec
from .models.layout import ParameterLayout
from .models.spec import ModelSpec
from .run import CLOSE_SECONDS, RECOVERABLE, Run, give_up, note_on_deaths
from .settings import RunSettings
from .statistics import mean_returns
from .training_state import IterationOutcome, TrainingState, Weights, extend_window

logger = logging.getLogger("shoal")


@dataclass(frozen=True)
class Collected:
    """References to what comes of one rollout of a group."""

    rollout: ObjectRef | None
    """None where nothing will be learned from it any more."""
    after: GroupProgress
    """The group then."""
    stats: ObjectRef


@dataclass(frozen=True)
class Rollouts:
    """References to what is learned from in one iteration, in the order in which it lies side by side."""

    rollouts: tuple[ObjectRef, ...]
    groups: tuple[GroupProgress, ...]
    stats: tuple[ObjectRef, ...]
    timesteps: int
    """Environment steps in them."""

    @staticmethod
    def of(collected: Sequence[Collected], timesteps: int) -> Rollouts:
        """Rollouts with so many steps together."""
        return Rollouts(
            tuple(each.rollout for each in collected if each.rollout is not None),
            tuple(each.after for each in collected),
            tuple(each.stats for each in collected),
            timesteps,
        )


class RolloutWorkers:
    """Rollout workers; they restart if their process dies, and repeat what they were doing."""

    def __init__(
        self,
        algorithm: type[Collecting],
        config: Any,
        spec: EnvSpec,
        model_spec: AnySpec,
        run: RunSettings,
        *,
        deaths: Deaths,
    ) -> None:
        self._env_id, self._run, self._deaths = spec.id, run, deaths
        self._rollout_steps = algorithm.rollout_steps(config)
        self._steps = self._rollout_steps * run.n_envs
        if run.workers > run.groups:
            idle = run.workers - run.groups
            logger.warning("%d of %d workers stay idle: there are %d simulation groups", idle, run.workers, run.groups)
        self._channel = Channel()
        self.endpoint = None if run.listen is None else Endpoint.at(run.listen)
        """Where simulators outside connect, if they are what is learned from."""
        self.recovery: RecoveryChoice | None = None
        """How environments are put back; None where they are outside, or there are none."""
        worker_class: type[Any]
        own: dict[str, Any]
        if isinstance(model_spec, ModelSpec) and model_spec.is_language:
            worker_class, count, own = Generator, min(run.workers, run.groups), {}
        elif self.endpoint is None:
            worker_class = JointWorker if isinstance(model_spec, JointSpec) else RolloutWorker
            count = min(run.workers, run.groups)
            self.recovery = choose_group_recovery(run.vectorization, spec, run.seed)
            own = {"recovery": self.recovery}
        else:
            worker_class, count, own = SimulatorWorker, 1, {"endpoint": self.endpoint}
        own |= {"spec": spec, "model_spec": model_spec, "settings": run, "channel": self._channel}
        made = runtime.remote(worker_class).options(**RECOVERABLE)
        self.actors = [made.remote(algorithm, config, **own) for _ in range(count)]
        self.collecting: Sequence[ObjectRef] = ()
        """Of the rollouts that are being made; they are cancelled at the end."""
        self._rollouts: tuple[Rollouts, ...] = ()  # held: what nobody holds when it fails counts as unread

    def begin(
        self,
        index: int,
        group: GroupProgress,
        weights: Weights,
        clock: Clock,
        opponent: Meeting | None = None,
        *,
        place: tuple[int, int, int] | None = None,
    ) -> Collected:
        """Start a rollout of simulation group `index`, which worker index % workers simulates; against `opponent`, if
        there is one. `place` is the iteration, how many of its cycles are done, and of how many; None where groups do
        not wait for each other."""
        call, worker = divmod(index, len(self.actors))
        more = {} if opponent is None else {"opponent": opponent.sha256, "opponent_weights": opponent.weights}
        calls = len(range(worker, self._run.groups, len(self.actors)))
        iteration, cycle, cycles = place or (group.rollouts, 0, 1)
        call, calls = cycle * calls + call, cycles * calls
        death = self._deaths.of_worker(iteration, worker, call=call, calls=calls, steps=self._rollout_steps)
        if death is not None:
            more["death"] = death
        given = index, group, weights.ref, weights.version, clock
        rollout, after, stats = self.actors[worker].collect.remote(*given, **more)
        return Collected(rollout, GroupProgress(group.rollouts + 1, after), stats)

    def collect(self, state: TrainingState, clock: Clock, *, beside: Rollouts | None = None) -> Rollouts:
        """Start a rollout of every simulation group under the weights of `state`, and go on with those `beside`."""
        run, begun = self._run, []
        for index, group in enumerate(state.groups):
            met = state.league.meeting(run.seed, index, group.rollouts, latest=run.league_latest, size=run.league_size)
            place = state.iteration, *state.cycles
            begun.append(self.begin(index, group, state.weights, clock, met, place=place))
        made = Rollouts.of(begun, self._steps)
        self._rollouts = (made,) if beside is None else (beside, made)
        self.collecting = [ref for rollouts in self._rollouts for ref in rollouts.stats]
        return made

    def stats(self, refs: Sequence[ObjectRef]) -> list[RolloutStats]:
        """Wait for what rollouts tell the driver. Raises what the environment raised."""
        try:
            return get(list(refs))
        except exceptions.ActorUnavailableError as error:
            note_on_deaths(error, "rollout", self._env_id)
            raise

    def results(self, refs: Sequence[ObjectRef], *, of_all_groups: bool = False) -> RolloutStats:
        """Wait for the `stats` of rollouts, and put them together, as `stats_of_groups` does. Raises what the
        environment raised."""
        return stats_of_groups(self.stats(refs), len(self.actors) if of_all_groups else None)

    def close(self) -> None:
        """Let the workers close their environments, for 10 s at most, and end them."""
        self._channel.close()
        for ref in self.collecting:
            runtime.cancel(ref)  # of those that have not begun; one that runs asks the channel now and then
        closed = [actor.close.remote() for actor in self.actors]
        give_up([*self.collecting, *closed], CLOSE_SECONDS)
        for actor in self.actors:
            runtime.kill(actor)


class LearnerRun(Run):
    """A learner alone."""

    @cached_property
    def learner(self) -> LearnerHandle | LearnerGroup:
        """The learner, or the group of learners."""
        spec, run = self._model_spec, self.settings
        own: tuple[Any, ...] = (self._algorithm, self.config, spec, run)
        named = named_weights(spec, run)
        if isinstance(spec, JointSpec):
            return start_learners(JointLearnerActor, (*own, initial_weights(spec, run)), run, self.deaths)
        made = LearnerActor if self._reader is None else partial(LearnerActor, reader=self._reader)
        return start_learners(made, (*own, named), run, self.deaths)

    @cached_property
    def _reader(self) -> ActorHandle | None:
        """The actor that reads a dataset for all learners; None where there is one learner, or no dataset."""
        alone = self.settings.most_learners == 1 or runtime.engine_name() == "serial"
        if alone or not self._algorithm.reads_dataset:
            return None
        return runtime.remote(PieceReader).options(num_cpus=0, **RECOVERABLE).remote(shares=True)

    @property
    def description(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """The learner's."""
        return self.learner.description

    def snapshot(self, state: TrainingState) -> tuple[dict[str, Any], tuple[Piece, ...]]:
        """The learner's."""
        return self.learner.snapshot(state)

    def learn_alone(self, state: TrainingState, timesteps: int, clock: Clock) -> IterationOutcome:
        """Let the learner update from what it has; `timesteps` are what this counts for."""
        return self.learn_given(state, (), timesteps, clock)

    def learn_given(
        self, state: TrainingState, rollouts: tuple[ObjectRef, ...], timesteps: int, clock: Clock
    ) -> IterationOutcome:
        """Let the learner update from rollouts that nobody plays, or from none."""
        return self._finish(self._begin_update(state, LearnerInput(rollouts, clock), timesteps), timesteps, (), [])

    def _begin_update(self, state: TrainingState, given: LearnerInput, timesteps: int) -> Update:
        return self.learner.start(state, given, snapshot_is_due(state.learner, timesteps))

    def _finish(
        self, update: Update, timesteps: int, groups: tuple[GroupProgress, ...], episodes: list[Episode]
    ) -> IterationOutcome:
        return self._after(update.state, self.learner.finish(update), timesteps, groups, episodes)

    def _after(
        self,
        state: TrainingState,
        led_to: tuple[Weights, LearnerLog, dict[str, float]],
        timesteps: int,
        groups: tuple[GroupProgress, ...],
        episodes: list[Episode],
    ) -> IterationOutcome:
        """What an iteration from `state` comes to, which `led_to` the next weights, the log with them, and metrics."""
        weights, log, metrics = led_to
        following = TrainingState(
            iteration=state.iteration + 1,
            timesteps=state.timesteps + timesteps,
            weights=weights,
            groups=groups,
            learner=log,
            recent=extend_window(state.recent, episodes),
            league=self._league_after(state, weights, timesteps, episodes),
        )
        returns = {f"agents/{agent}/ep_rew_mean": value for agent, value in mean_returns(episodes).items()}
        if self.settings.league_freq is not None:
            returns |= {"league/rating": following.league.rating, "league/size": len(following.league.opponents)}
        return IterationOutcome(state=following, episodes=episodes, metrics=metrics | returns | self.deaths.metrics())

    def _league_after(self, state: TrainingState, weights: Weights, timesteps: int, episodes: list[Episode]) -> League:
        """The league after an iteration's games, which the weights of now join where it is time."""
        freq, league = self.settings.league_freq, state.league.after(episodes)
        clock = Clock(state.timesteps, state.timesteps + timesteps)
        if freq is None or not clock.passes(freq, timesteps):
            return league
        sha256 = self.description[1].sha256(get(weights.ref))
        return league.with_snapshot(sha256, state.timesteps + timesteps, weights.version, weights.ref)

    def end_actors(self) -> None:
        """End the learner, if it was started."""
        if "learner" in vars(self):  # what a cached property made
            self.learner.close()
            if self._reader is not None:
                runtime.kill(self._reader)


class ActorLearnerRun(LearnerRun):
    """Rollout workers and a learner."""

    @cached_property
    def workers(self) -> RolloutWorkers:
        """The rollout workers."""
        given = (self._algorithm, self.config, self._spec, self._model_spec, self.settings)
        return RolloutWorkers(*given, deaths=self.deaths)

    def initial_state(self) -> TrainingState:
        """With all simulation groups at their beginning, and in a league the weights of now, which play at random."""
        state = replace(super().initial_state(), groups=(GroupProgress(),) * self.settings.groups)
        if self.settings.league_freq is None:
            return state
        flat, layout, _ = self.description
        return replace(state, league=League().with_snapshot(layout.sha256(flat), 0, 0, state.weights.ref))

    def learn(self, state: TrainingState, rollouts: Rollouts, clock: Clock) -> IterationOutcome:
        """Let the learner update on rollouts that were made from `state`; what one iteration leads to."""
        update = self._begin_update(state, LearnerInput(rollouts.rollouts, clock), rollouts.timesteps)
        told = self.workers.results(
            rollouts.stats, of_all_groups=True
        )  # first: an environment's exception causes all others
        outcome = self._finish(update, rollouts.timesteps, rollouts.groups, told.episodes)
        metrics = {**outcome.metrics, **told.metrics}
        return replace(outcome, metrics=metrics, digests=told.digests, examples=told.examples)

    def end_actors(self) -> None:
        """End those that were started."""
        if "workers" in vars(self):
            self.workers.close()
        super().end_actors()
