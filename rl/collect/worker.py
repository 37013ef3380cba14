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

import functools
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import (
    EnvGroup,
    EnvSpec,
    Episode,
    GroupState,
    RecoveryChoice,
    derive_seed,
    own_generators,
    stream,
)
from ...runtime import ObjectRef, get, method
from ..clock import Clock
from ..data.batch import Batch, Column
from ..data.columns import rollout_columns
from ..data.rollout import Rollout
from ..data.tree import Tree, tree_map
from ..declaration import Declaration
from ..lazy import load, torch
from ..models.spec import ModelSpec
from ..settings import RunSettings
from ..threads import limit_threads, limit_torch_threads
from .channel import Channel

if TYPE_CHECKING:
    from ..models.model import Model


@dataclass(frozen=True)
class GroupProgress:
    """How far a simulation group is."""

    rollouts: int = 0
    """Rollouts that it has done: names the random stream of its next one."""
    ref: ObjectRef | None = None
    """Its `GroupState`, fetched only by a worker that doesn't hold the live group; None before its first rollout."""


@dataclass(frozen=True)
class RolloutStats:
    """The small part of what a rollout produced, for the driver."""

    episodes: list[Episode]
    """Episodes that ended, in the order of their end."""
    environment_seconds: float
    """Time spent in the environments' steps."""
    inference_seconds: float
    """Time spent in the model's forward passes."""
    restore_seconds: float
    """Time spent on making the group, anew or from its state."""


@dataclass
class _LiveGroup:
    """A group of environments as they are after `rollouts` rollouts."""

    environments: EnvGroup
    rollouts: int


class RolloutWorker:
    """Actor class. Steps the groups that it is asked for; any worker can step any group.

    `algorithm` says how to act, with `config`; `spec` makes the environments, `recovery` says how they are put back,
    `model_spec` makes the model, `settings` are the run's; `channel` is the driver's other ear.
    """

    def __init__(
        self,
        algorithm: type[Declaration],
        config: Any,
        *,
        spec: EnvSpec,
        model_spec: ModelSpec,
        settings: RunSettings,
        recovery: RecoveryChoice,
        channel: Channel,
    ) -> None:
        limit_threads(settings.threads)
        self._algorithm, self._config = algorithm, config
        self._spec, self._model_spec, self._settings = spec, model_spec, settings
        self._recovery, self._channel = recovery, channel
        self._model: Model | None = None
        self._live: dict[int, _LiveGroup] = {}

    @method(num_returns=3)
    def collect(
        self, group: int, progress: GroupProgress, weights: np.ndarray, version: int, clock: Clock
    ) -> tuple[Rollout, GroupState, RolloutStats]:
        """Step all environments of simulation group `group` one rollout further than `progress`.

        `weights` are flat, `version` updates old; `clock` is that of the rollout's start.
        """
        limit_torch_threads(self._settings.threads)
        if self._settings.step_timeout is not None:
            self._channel.raise_reported(group)
        # Whoever draws from a global generator in between, or has drawn before, has no influence on the result.
        with own_generators(derive_seed(self._settings.seed, "global generators", group, progress.rollouts)):
            return self._collect(group, progress, weights, version, clock)

    def close(self) -> None:
        """Close all environments; the driver asks for it before it ends the actor."""
        live, self._live = self._live, {}
        for group in live.values():
            group.environments.close()

    def _collect(
        self, group: int, progress: GroupProgress, weights: np.ndarray, version: int, clock: Clock
    ) -> tuple[Rollout, GroupState, RolloutStats]:
        started = time.perf_counter()
        live = self._live.pop(group, None)  # put back at the end: a group that failed half-way is not live any more
        if live is None or live.rollouts != progress.rollouts:
            if live is not None:
                live.environments.close()
            live = _LiveGroup(self._make_group(group, progress.ref), progress.rollouts)
        restored = time.perf_counter()
        model = self._load_model()
        model.set_weights(weights)
        steps, size = self._algorithm.rollout_steps(self._config), self._settings.environments_per_group
        noise = model.draw_noise(stream(self._settings.seed, "actions", group, progress.rollouts), (steps, size))
        try:
            rollout, stats = self._roll_out(model, live.environments, noise, version, clock)
        except BaseException:  # the user's own error, or Ctrl-C: it goes on to them, the half-stepped group must not
            live.environments.close()
            raise
        live.rollouts = progress.rollouts + 1
        self._live[group] = live
        episodes, inference_seconds, environment_seconds = stats
        return (
            rollout,
            live.environments.state(),
            RolloutStats(episodes, environment_seconds, inference_seconds, restored - started),
        )

    def _make_group(self, group: int, state: ObjectRef | None) -> EnvGroup:
        settings, size = self._settings, self._settings.environments_per_group
        environments = EnvGroup(
            self._spec,
            size=size,
            first_index=group * size,
            run_seed=settings.seed,
            recovery=self._recovery,
            check=settings.check,
            step_timeout=settings.step_timeout,
            end_process=functools.partial(self._end_process, group) if self._channel.between_processes else None,
        )
        try:
            if state is None:
                environments.reset()
            else:
                environments.restore(get(state))
        except BaseException:
            environments.close()
            raise
        return environments

    def _end_process(self, group: int, report: str) -> None:
        """Leave a report for the call's next try, and end: nothing else ends code that does not return."""
        self._channel.report(group, report)
        os._exit(1)

    def _load_model(self) -> Model:
        if self._model is None:
            self._model = load("build_model")(self._model_spec)
        assert self._model is not None
        return self._model

    def _roll_out(
        self, model: Model, environments: EnvGroup, noise: np.ndarray, version: int, clock: Clock
    ) -> tuple[Rollout, tuple[list[Episode], float, float]]:
        """One rollout of `len(noise)` steps; also the episodes that ended, and seconds spent on inference and in the
        environments."""
        algorithm, config, (steps, size) = self._algorithm, self._config, noise.shape[:2]
        spec = self._model_spec
        columns = rollout_columns(spec.observation_space, spec.action_space) | algorithm.records(spec)
        batch = Batch.allocate(columns, steps, size)
        recorder = _Recorder(batch)
        episodes: list[Episode] = []
        inference = stepping = 0.0
        asked = time.perf_counter()
        observations = environments.observations
        with torch.inference_mode():
            drawn = torch.from_numpy(noise)
            for t in range(steps):
                begin = time.perf_counter()
                rows = model.encode(observations)
                acted = algorithm.explore(model, rows, drawn[t], config, clock.after(t * self._settings.n_envs))
                actions = recorder.acted(t, observations, acted)
                if actions.dtype.kind == "f":
                    model.check_finite(observations, action=actions)
                chosen = time.perf_counter()
                step = environments.step(model.environment_actions(actions))
                recorder.stepped(t, step)
                episodes += step.episodes
                observations = step.observations
                inference += chosen - begin
                stepping += time.perf_counter() - chosen
                asked = self._channel.ask(asked, chosen)  # a rollout can take minutes
            begin = time.perf_counter()
            rollout = Rollout(batch, recorder.finals(), version)
            flat = batch.flat()
            model.check_finite(flat["observations"], **flat.only(recorder.recorded))
            algorithm.finish(model, rollout, config)
        kept = [name for name in batch if not _is_scratch(columns[name])]
        rollout = Rollout(batch.only(kept), rollout.finals, version)
        return rollout, (episodes, inference + time.perf_counter() - begin, stepping)


class _Recorder:
    """Writes steps into the columns of a batch, and keeps the observations that ended something."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.recorded: list[str] = []
        self._observations, self._actions = batch["observations"], batch["actions"]
        self._rewards, self._terminations, self._truncations = (
            batch[name] for name in ("rewards", "terminations", "truncations")
        )
        self._rows: list[np.ndarray] = []
        self._finals: list[Tree] = []

    def acted(self, t: int, observations: Tree, acted: Any) -> np.ndarray:
        """Write down what the model saw and chose at step t; returns the actions."""
        _write(self._observations, t, observations)
        actions = acted.actions.numpy()
        self._actions[t] = actions
        for name, values in acted.records.items():
            self._batch[name][t] = values.numpy()
        self.recorded = list(acted.records)
        return actions

    def stepped(self, t: int, step: Any) -> None:
        """Write down what came of it."""
        self._rewards[t] = step.rewards
        self._terminations[t] = step.terminations
        self._truncations[t] = step.truncations & ~step.terminations
        steps, size = self._batch.shape
        last = t == steps - 1
        if last or step.episodes:
            ended = np.arange(size) if last else np.flatnonzero(step.terminations | step.truncations)
            self._rows.append(t * size + ended)
            self._finals.append(tree_map(lambda leaf: leaf[ended], step.final_observations))

    def finals(self) -> Batch:
        """The columns `rows` and `observations` of a rollout's finals."""
        joined = tree_map(lambda *parts: np.concatenate(parts), *self._finals)
        return Batch({"rows": np.concatenate(self._rows), "observations": joined})


def _write(to: Tree, t: int, values: Tree) -> None:
    if isinstance(to, np.ndarray):
        to[t] = values
    else:
        tree_map(lambda own, new: own.__setitem__(t, new), to, values)


def _is_scratch(column: Tree) -> bool:
    return isinstance(column, Column) and column.scratch
