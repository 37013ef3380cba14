"""What one simulation group experienced in one rollout, written by a rollout worker and read by the learner.

The observation after step t is that before step t + 1 of the same environment, except where an episode ended and after
the last step. Only those are kept beside the steps (`finals`), so that no observation lies in memory twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .batch import Batch
from .tree import Tree, tree_map


@dataclass(frozen=True, eq=False)
class Rollout:
    """T steps of N environments; of one group, or of several side by side."""

    steps: Batch
    """[T, N, …]: `observations`, what the model saw before step t; `actions`, as the model gave them, before
    `to_env_actions`; `rewards` float32; `terminations` bool, the task ended, no value follows (a step that also
    truncates counts as this); `truncations` bool, the episode was cut off, its value goes on; and the algorithm's
    records."""
    finals: Batch
    """[E, …], ordered by `rows`: `rows` int64, t · N + i of a step that ended an episode or is the last (t = T − 1);
    and `observations` after that step: the true last one of the episode, never that of the reset."""
    version: int
    """Updates that the weights which acted had seen."""

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return self.steps.shape[0], self.steps.shape[1]

    def next_observations(self) -> Tree:
        """[T, N, …]: the observation after each step, never that of a reset. A copy."""
        steps, size = self.shape
        rows = self.finals["rows"]

        def following(before: np.ndarray, final: np.ndarray) -> np.ndarray:
            after = np.empty_like(before)
            after[:-1] = before[1:]
            after.reshape(steps * size, *before.shape[2:])[rows] = final
            return after

        return tree_map(following, self.steps["observations"], self.finals["observations"])

    @staticmethod
    def side_by_side(rollouts: Sequence[Rollout]) -> Rollout:
        """Several groups as one, in the order given. Raises ValueError, naming the column, if shapes do not fit."""
        if len(rollouts) == 1:
            return rollouts[0]
        steps = Batch.side_by_side([rollout.steps for rollout in rollouts])
        width, before, finals = steps.shape[1], 0, []
        for rollout in rollouts:
            t, i = np.divmod(rollout.finals["rows"], rollout.shape[1])
            finals.append(rollout.finals.plus(rows=t * width + before + i))
            before += rollout.shape[1]
        joined = Batch.end_to_end(finals)
        return Rollout(steps, joined.take(np.argsort(joined["rows"], kind="stable")), rollouts[0].version)

    @staticmethod
    def end_to_end(rollouts: Sequence[Rollout]) -> Rollout:
        """Rollouts of the same environments that follow each other in time, as one."""
        if len(rollouts) == 1:
            return rollouts[0]
        steps = Batch.end_to_end([rollout.steps for rollout in rollouts])
        starts = np.cumsum([0, *(rollout.steps.rows for rollout in rollouts)])
        finals = [
            rollout.finals.plus(rows=rollout.finals["rows"] + start)
            for rollout, start in zip(rollouts, starts, strict=False)
        ]
        return Rollout(steps, Batch.end_to_end(finals), rollouts[0].version)
