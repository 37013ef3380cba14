"""The rollout worker: an actor that steps simulation groups and writes trajectories into the object store.

    collect(group, [state], weights, …) → (trajectory, next state, stats)

Collecting is functional: everything that decides the result is in the arguments, and the worker only caches the live
environments. So a call can be repeated anywhere, also on a worker that was just restarted: it rebuilds the group from
its state, and returns the same bytes.

This module doesn't import torch (see `lazy`): the driver imports it to name the class. The policy is loaded in the
worker's process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from ..envs import EnvGroup, EnvSpec, Episode, GroupState, GroupStep, stream
from ..runtime import ObjectRef, get, method
from .architecture import row_size
from .lazy import load
from .settings import RunSettings
from .threads import limit_threads, limit_torch_threads
from .trajectory import Trajectory

if TYPE_CHECKING:
    from .policy import Policy


@dataclass(frozen=True)
class RolloutStats:
    """The small part of what a rollout produced, for the driver."""

    episodes: list[Episode]
    """Episodes that ended, in the order of their end."""
    environment_seconds: float
    """Time spent in the environments' steps."""
    inference_seconds: float
    """Time spent in the policy's forward passes."""
    restore_seconds: float
    """Time spent on making the group, anew or from its state."""


@dataclass
class _LiveGroup:
    """A group of environments as they are after `iteration` rollouts."""

    environments: EnvGroup
    iteration: int


class RolloutWorker:
    """Actor class. Steps the groups that it is asked for; any worker can step any group.

    `spec` makes the environments, `settings` are the run's, `n_steps` is the length of a rollout per environment.
    """

    def __init__(self, spec: EnvSpec, settings: RunSettings, n_steps: int) -> None:
        limit_threads(settings.threads)
        self._spec, self._settings, self._n_steps = spec, settings, n_steps
        self._policy: Policy | None = None
        self._live: dict[int, _LiveGroup] = {}

    @method(num_returns=3)
    def collect(
        self, group: int, state: Sequence[ObjectRef | None], weights: np.ndarray, iteration: int
    ) -> tuple[Trajectory, GroupState, RolloutStats]:
        """Step all environments of simulation group `group` n_steps times, from where iteration `iteration` begins.

        `state` boxes a reference to the group's state at the start of that iteration ([None] at the very beginning): it
        is fetched only if this worker doesn't hold the live group. `weights` are flat; they are `iteration` updates
        old, which is their version.
        """
        limit_torch_threads(self._settings.threads)
        started = time.perf_counter()
        live = self._live.pop(group, None)  # put back at the end: a group that failed half-way is not live any more
        if live is None or live.iteration != iteration:
            if live is not None:
                live.environments.close()
            live = _LiveGroup(self._make_group(group, state[0]), iteration)
        restored = time.perf_counter()
        policy = self._load_policy(live.environments)
        policy.set_weights(weights, version=iteration)
        size = self._settings.environments_per_group
        noise = policy.draw_noise(stream(self._settings.seed, "actions", group, iteration), (self._n_steps, size))
        try:
            trajectory, episodes, inference_seconds, environment_seconds = _roll_out(policy, live.environments, noise)
        except BaseException:  # the user's own error, or Ctrl-C: it goes on to them, the half-stepped group must not
            live.environments.close()
            raise
        live.iteration = iteration + 1
        self._live[group] = live
        return (
            trajectory,
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
            vectorization=settings.vectorization,
        )
        if state is None:
            environments.reset()
        else:
            environments.restore(get(state))
        return environments

    def _load_policy(self, environments: EnvGroup) -> Policy:
        if self._policy is None:
            self._policy = load("Policy")(
                environments.observation_space, environments.action_space, policy_kwargs=self._settings.policy_kwargs
            )
        assert self._policy is not None
        return self._policy


def _roll_out(
    policy: Policy, environments: EnvGroup, noise: np.ndarray
) -> tuple[Trajectory, list[Episode], float, float]:
    """One trajectory of `len(noise)` steps; also the episodes that ended, and seconds spent on inference and in the
    environments."""
    steps, size, outputs_size = noise.shape
    observation_space, action_space = environments.observation_space, environments.action_space
    trajectory = _allocate(steps, size, observation_space, action_space)
    outputs = np.empty((steps, size, outputs_size), dtype=np.float32)
    episodes: list[Episode] = []
    inference = stepping = 0.0
    observations = environments.observations
    for t in range(steps):
        begin = time.perf_counter()
        trajectory.observations[t] = observations
        trajectory.actions[t], outputs[t], trajectory.values[t] = policy.explore(observations, noise[t])
        actions = policy.environment_actions(trajectory.actions[t])
        acted = time.perf_counter()
        step = environments.step(actions)
        _record(trajectory, t, step)
        episodes += step.episodes
        observations = step.observations
        inference += acted - begin
        stepping += time.perf_counter() - acted
    begin = time.perf_counter()
    trajectory.log_probs[:] = policy.log_probs(outputs.reshape(steps * size, -1), trajectory.flat("actions")).reshape(
        steps, size
    )
    _bootstrap(policy, trajectory)
    return trajectory, episodes, inference + time.perf_counter() - begin, stepping


def _allocate(steps: int, size: int, observation_space: spaces.Space, action_space: spaces.Space) -> Trajectory:
    is_box, is_discrete = isinstance(action_space, spaces.Box), isinstance(action_space, spaces.Discrete)
    components = int(np.prod(action_space.shape or ())) if not is_box else row_size(action_space)
    return Trajectory.allocate(
        steps,
        size,
        observation_shape=tuple(observation_space.shape or ()),
        observation_dtype=np.dtype(observation_space.dtype),
        action_shape=() if is_discrete else (components,),
        action_dtype=np.dtype(np.float32 if is_box else np.int64),
    )


def _record(trajectory: Trajectory, t: int, step: GroupStep) -> None:
    trajectory.rewards[t] = step.rewards
    trajectory.terminations[t] = step.terminations
    trajectory.truncations[t] = step.truncations & ~step.terminations
    trajectory.final_observations[t] = step.final_observations


def _bootstrap(policy: Policy, trajectory: Trajectory) -> None:
    """Fill `next_values`: V of the true next observation, by forward passes of the group's fixed shape; 0 where the
    episode terminated.

    Within an episode that is the next step's value. After a truncation and at the last step it is the value of the
    final observation.
    """
    steps = len(trajectory.values)
    trajectory.next_values[:-1] = trajectory.values[1:]
    for t in range(steps):
        truncated = trajectory.truncations[t] if t < steps - 1 else np.ones_like(trajectory.truncations[t])
        if truncated.any():
            trajectory.next_values[t, truncated] = policy.values(trajectory.final_observations[t])[truncated]
    trajectory.next_values[trajectory.terminations] = 0
