"""The rollout worker: an actor that steps simulation groups with the current weights and writes rollouts into the
object store. It knows no algorithm: how to act, and what to write down beside the vocabulary, the algorithm says.

    collect(group, [state], weights, …) → (rollout, next state, stats)

Collecting is functional: everything that decides the result is in the arguments, and the worker only caches the live
environments. So a call can be repeated anywhere, also on a worker that was just restarted: it rebuilds the group from
its state, and returns the same bytes.

This module doesn't import torch (see `lazy`): the driver imports it to name the class. The model is built in the
worker's process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import (
    EnvSpec,
    Episode,
    Group,
    GroupState,
    RecoveryChoice,
    begin_generators,
    derive_seed,
    make_group,
    own_generators,
    stream,
)
from ...runtime import ObjectRef, get, method
from ..chaos import Death
from ..clock import Clock
from ..data.batch import Batch
from ..data.rollout import Rollout
from ..data.tree import Tree, as_array, leaves, tree_map
from ..declaration import Collecting
from ..hashes import digests_of
from ..lazy import load, torch
from ..models.spec import ModelSpec
from ..settings import RunSettings
from ..threads import limit_threads, limit_torch_threads
from .channel import SECONDS_BETWEEN_QUESTIONS, Channel
from .records import Ends, arrays_of, finish_rollout, joined, recorded_columns
from .rollout_stats import RolloutStats

if TYPE_CHECKING:
    from ..models.model import Model


_NOTED_BYTES = 1_000_000
"""Of observations that are noted before they are written into the columns: larger ones are written at once."""


@dataclass(frozen=True)
class GroupProgress:
    """How far a simulation group is."""

    rollouts: int = 0
    """Rollouts that it has done: names the random stream of its next one."""
    ref: ObjectRef | None = None
    """Its `GroupState`, fetched only by a worker that doesn't hold the live group; None before its first rollout."""


@dataclass
class LiveGroup:
    """A group of environments as they are after `rollouts` rollouts."""

    environments: Group
    rollouts: int
    memory: Any
    """What the model remembers, a tree of tensors [size, …]; None if it has no memory."""


class Recorder:
    """Writes the steps of a rollout [T, N] into the `columns` of a batch, and keeps the observations that ended
    something. Where it is not `shared` with other processes, it lies in memory that is written once, too.
    """

    def __init__(
        self,
        algorithm: type[Collecting],
        spec: ModelSpec,
        columns: Mapping[str, Tree],
        shape: tuple[int, int],
        *,
        shared: bool = True,
    ) -> None:
        self._algorithm, self._sequence_length = algorithm, spec.sequence_length
        self._batch = batch = Batch.allocate(columns, *shape, shared=shared)
        self._shared = shared
        self._columns = dict(batch)
        self._observations, self._actions, self._rewards = (
            batch[name] for name in ("observations", "actions", "rewards")
        )
        self.actions_are_real = self._actions.dtype.kind == "f"
        """Whether they are no choices, and may be not finite."""
        self._last, self._most = shape[0] - 1, max(1, _NOTED_BYTES // max(1, self._observations[0].nbytes))
        self._seen: list[Any] = []
        self._earned: list[Any] = []
        self._ends = Ends(batch)
        self._memories: list[Tree] = []

    def remember(self, t: int, memory: Any) -> None:
        """Write down what is remembered before step t, if a sequence begins there."""
        if t % self._sequence_length == 0:
            self._memories.append(arrays_of(memory))

    def acted(self, t: int, observations: np.ndarray, acted: Any) -> np.ndarray:
        """Write down what the model saw and chose at step t; returns the actions."""
        self._seen.append(observations)
        actions = as_array(acted.actions)
        self._actions[t] = actions
        if acted.records:
            for name, values in acted.records.items():
                self._columns[name][t] = as_array(values)
        return actions

    def stepped(self, t: int, step: Any, memory: Any) -> None:
        """Write down what came of it; `memory` is that after the step, before anything is forgotten."""
        self._earned.append(step.rewards)
        if t == self._last or step.episodes or step.resets is not None:
            self._ends.note(t, step, None if memory is None else arrays_of(memory))
        if t == self._last or len(self._seen) == self._most:
            self._write(t + 1)

    def _write(self, end: int) -> None:
        """Put what was noted of the steps up to `end` into the columns: arrays that no later step touches."""
        now = slice(end - len(self._seen), end)
        for noted, column in ((self._seen, self._observations), (self._earned, self._rewards)):
            column[now] = joined(noted).reshape(-1, *column.shape[1:])
            noted.clear()
        self._ends.write()

    def finish(self, model: Model, config: Any, version: int, group: int = 0) -> Rollout:
        """The whole rollout, with what the algorithm knows only now."""
        rollout = Rollout(self._batch, self._ends.finals(), version, self._memories_of(), group)
        rollout = finish_rollout(self._algorithm, model, rollout, config)
        if not self._shared:
            for _, leaf in leaves(dict(rollout.steps)):
                leaf.setflags(write=False)  # as what comes from the object store is: nobody learns on this memory
        return rollout

    def _memories_of(self) -> Batch | None:
        if not self._memories:
            return None
        return Batch({"memory": tree_map(lambda *parts: np.stack(parts), *self._memories)}, 2)


class RolloutWorker:
    """Actor class. Steps the groups that it is asked for; any worker can step any group.

    `algorithm` says how to act, with `config`; `spec` makes the environments, `recovery` says how they are put back,
    `model_spec` makes the model, `settings` are the run's; `channel` is the driver's other ear; rollouts are `shared`
    with other processes, or not.
    """

    def __init__(
        self,
        algorithm: type[Collecting],
        config: Any,
        *,
        spec: EnvSpec,
        model_spec: ModelSpec,
        settings: RunSettings,
        recovery: RecoveryChoice,
        channel: Channel,
        shared: bool = True,
    ) -> None:
        limit_threads(settings.threads)
        self._algorithm, self._config = algorithm, config
        self._shared = shared
        self.rollout_steps = algorithm.rollout_steps(config)
        """Steps per environment and rollout."""
        self._spec, self._model_spec, self._settings = spec, model_spec, settings
        self._recovery, self._channel = recovery, channel
        self._live: dict[int, LiveGroup] = {}
        self._death: Death | None = None
        self._columns: dict[str, Tree] = {}
        self._noise: list[np.ndarray] = []

    @method(num_returns=3)
    def collect(
        self,
        group: int,
        progress: GroupProgress,
        weights: np.ndarray,
        version: int,
        clock: Clock,
        *,
        death: Death | None = None,
    ) -> tuple[Any, GroupState, RolloutStats]:
        """Step all environments of simulation group `group` one rollout further than `progress`; perhaps die.

        `weights` are flat, `version` updates old; `clock` is that of the rollout's start.
        """
        self.raise_reported(group)
        with self.own_generators():
            # Whoever draws from a global generator in between, or has drawn before, has no influence on the result.
            begin_generators(self.seed_of(group, progress.rollouts))
            rollout, stats = self.play(group, progress, weights, version, clock, death=death)
            return rollout, self.state(group), stats

    def close(self) -> None:
        """Close all environments; the driver asks for it before it ends the actor."""
        live, self._live = self._live, {}
        for group in live.values():
            group.environments.close()

    # ---- what `collect` is made of

    def raise_reported(self, group: int) -> None:
        """Raise EnvTimeoutError if an earlier try of the same call had to end its process."""
        if self._settings.step_timeout is not None:
            self._channel.raise_reported(group)

    def ask(self, asked: float, now: float) -> float:
        """As `Channel.ask`."""
        return self._channel.ask(asked, now)

    def own_generators(self) -> contextlib.AbstractContextManager[None]:
        """Around all that is done with environments: afterwards the global generators are as they were, unless this
        process is the worker's, where nobody asks for them."""
        return contextlib.nullcontext() if self._channel.between_processes else own_generators(0)

    def seed_of(self, group: int, rollout: int) -> int:
        """Where the global generators are to begin for a rollout of a group."""
        return derive_seed(self._settings.seed, "global generators", group, rollout)

    def play(
        self,
        group: int,
        progress: GroupProgress,
        weights: np.ndarray,
        version: int,
        clock: Clock,
        *,
        death: Death | None = None,
    ) -> tuple[Any, RolloutStats]:
        """A rollout, and what it tells; arguments as of `collect`."""
        self._death = death
        limit_torch_threads(self._settings.threads)
        started = time.perf_counter()
        live = self._live.pop(group, None)  # put back at the end: a group that failed half-way is not live any more
        if live is None or live.rollouts != progress.rollouts:
            if live is not None:
                live.environments.close()
            live = self._make_group(group, progress)
        restored = time.perf_counter()
        model = self._model
        model.set_weights(weights)
        try:
            rollout, stats = self._roll_out(model, live, group, version, clock)
        except BaseException:  # the user's own error, or Ctrl-C: it goes on to them, the half-stepped group must not
            live.environments.close()
            raise
        live.rollouts += 1
        self._live[group] = live
        episodes, inference_seconds, environment_seconds = stats
        digests = digests_of(rollout, self._noise) if self._settings.records_hashes else {}
        return rollout, RolloutStats(episodes, environment_seconds, inference_seconds, restored - started, digests)

    def state(self, group: int) -> GroupState:
        """The state of a live group."""
        live = self._live[group]
        return replace(live.environments.state(), memory=self._saved_memory(live))

    def _make_group(self, group: int, progress: GroupProgress) -> LiveGroup:
        settings, size = self._settings, self._settings.environments_per_group
        environments = make_group(
            settings.vectorization,
            self._spec,
            size=size,
            first_index=group * size,
            run_seed=settings.seed,
            recovery=self._recovery,
            check=settings.check,
            step_timeout=settings.step_timeout,
            end_process=functools.partial(self._end_process, group) if self._channel.between_processes else None,
            most_action_bytes=settings.recorded_action_bytes,
        )
        try:
            memory = self._initial_memory(size)
            if progress.ref is None:
                environments.reset()
            else:
                state: GroupState = get(progress.ref)
                if environments.restore(state):
                    memory = self._loaded_memory(state.memory)
        except BaseException:
            environments.close()
            raise
        return LiveGroup(environments, progress.rollouts, memory)

    def _initial_memory(self, size: int) -> Any:
        """What is remembered where the episodes of a group begin."""
        return self._model.initial_memory(size)

    def _saved_memory(self, live: LiveGroup) -> dict[str, np.ndarray]:
        """What is remembered, as arrays."""
        return {} if live.memory is None else arrays_of(live.memory)

    def _loaded_memory(self, saved: Mapping[str, np.ndarray]) -> Any:
        """The inverse of `_saved_memory`."""
        return {name: torch.tensor(array) for name, array in saved.items()} or None

    def _end_process(self, group: int, report: str) -> None:
        """Leave a report for the call's next try, and end: nothing else ends code that does not return."""
        self._channel.report(group, report)
        os._exit(1)

    @functools.cached_property
    def _model(self) -> Any:
        return load("build_model")(self._model_spec)

    def _roll_out(
        self, model: Model, live: LiveGroup, group: int, version: int, clock: Clock
    ) -> tuple[Any, tuple[list[Episode], float, float]]:
        """One rollout of a group; also the episodes that ended, and seconds spent on inference and in the
        environments."""
        algorithm, config, size = self._algorithm, self._config, self._settings.environments_per_group
        steps, spec = self.rollout_steps, self._model_spec
        environments, memory = live.environments, live.memory
        noise = model.draw_noise(stream(self._settings.seed, "actions", group, live.rollouts), (steps, size))
        self._noise = [noise]
        resets = environments.resets_on_next_step
        self._columns = self._columns or recorded_columns(algorithm, spec, resets=resets)
        recorder = Recorder(algorithm, spec, self._columns, (steps, size), shared=self._shared)
        episodes: list[Episode] = []
        inference = stepping = 0.0
        asked = time.perf_counter()
        observations = environments.observations
        exploration = algorithm.exploration(config, self._settings, group)
        acting, to_environment, n_envs = algorithm.acting(model), model.environment_actions, self._settings.n_envs
        with torch.inference_mode() if acting is model else acting.unchanging(size):
            drawn, is_real = acting.given(noise), recorder.actions_are_real
            now = time.perf_counter()
            for t in range(steps):
                begin = now
                rows = acting.encode(observations)
                if memory is not None:
                    recorder.remember(t, memory)
                    rows, memory = acting.recall(rows, memory)
                acted = algorithm.explore(acting, rows, drawn[t], exploration, clock.after(t * n_envs))
                actions = recorder.acted(t, observations, acted)
                if is_real:
                    model.check_finite(observations, action=actions)
                chosen = time.perf_counter()
                step = environments.step(to_environment(actions))
                recorder.stepped(t, step, memory)
                if memory is not None and (step.episodes or step.resets is not None):
                    memory = model.forget(memory, step.terminations | step.truncations)
                episodes += step.episodes
                observations = step.observations
                inference += chosen - begin
                now = time.perf_counter()
                stepping += now - chosen
                if chosen - asked > SECONDS_BETWEEN_QUESTIONS:  # a rollout can take minutes
                    asked = self._channel.ask(asked, chosen)
                if self._death is not None:
                    self._death.at(t)
            live.memory = memory
            rollout = recorder.finish(model, config, version, group)
        return rollout, (episodes, inference + time.perf_counter() - now, stepping)
