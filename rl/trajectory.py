"""What one simulation group experienced in one rollout: time-major arrays with a fixed vocabulary.

A rollout worker writes a trajectory once, into memory of the object store; the learner reads it there. T is the number
of steps, N the number of environments of the group (`group_size`), and row i of every array belongs to environment i of
the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..runtime import empty


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Arrays [T, N, …] of one rollout of one simulation group, or of several groups side by side (`concatenate`)."""

    observations: np.ndarray
    """[T, N, *observation_shape], the space's dtype: what the policy saw before step t."""
    actions: np.ndarray
    """[T, N, …]: actions as the policy's distribution gave them (before clipping to a Box's bounds or adding a
    Discrete's start)."""
    rewards: np.ndarray
    """[T, N] float32."""
    terminations: np.ndarray
    """[T, N] bool: the episode ended in a terminal state; no value follows. A step that both terminates and truncates
    counts as this."""
    truncations: np.ndarray
    """[T, N] bool: the episode was cut off, for example by a time limit; its value goes on."""
    final_observations: np.ndarray
    """[T, N, *observation_shape]: the observation after step t, the true last one where an episode ended (never that of
    the reset)."""
    log_probs: np.ndarray
    """[T, N] float32: log π(action | observation) under the weights that acted."""
    values: np.ndarray
    """[T, N] float32: V(observations)."""
    next_values: np.ndarray
    """[T, N] float32: V of the observation after step t: bootstrap value of `final_observations` where an episode was
    truncated and at the last step, 0 where it terminated, `values[t + 1]` elsewhere."""

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return self.rewards.shape[0], self.rewards.shape[1]

    @staticmethod
    def allocate(
        steps: int,
        environments: int,
        *,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
        action_shape: tuple[int, ...],
        action_dtype: np.dtype,
    ) -> Trajectory:
        """A writable trajectory in the object store's memory: returning it from a method seals it there, uncopied."""
        rows = (steps, environments)
        return Trajectory(
            observations=empty((*rows, *observation_shape), observation_dtype),
            actions=empty((*rows, *action_shape), action_dtype),
            rewards=empty(rows, np.dtype(np.float32)),
            terminations=empty(rows, np.dtype(np.bool_)),
            truncations=empty(rows, np.dtype(np.bool_)),
            final_observations=empty((*rows, *observation_shape), observation_dtype),
            log_probs=empty(rows, np.dtype(np.float32)),
            values=empty(rows, np.dtype(np.float32)),
            next_values=empty(rows, np.dtype(np.float32)),
        )

    @staticmethod
    def concatenate(trajectories: Sequence[Trajectory]) -> Trajectory:
        """Several groups side by side, in the order given: [T, N₁ + N₂ + …, …].

        Raises:
            ValueError: they do not fit; names the field and the shapes.
        """
        joined = {}
        for item in fields(Trajectory):
            arrays = [getattr(trajectory, item.name) for trajectory in trajectories]
            try:
                joined[item.name] = np.concatenate(arrays, axis=1)
            except ValueError as error:
                shapes = [array.shape for array in arrays]
                raise ValueError(
                    f"the trajectories' field {item.name!r} has shapes {shapes}, which do not fit together"
                ) from error
        return Trajectory(**joined)

    def flat(self, name: str) -> np.ndarray:
        """Field `name` as [T · N, …], row t · N + i being step t of environment i."""
        array: np.ndarray = getattr(self, name)
        return array.reshape(-1, *array.shape[2:])
