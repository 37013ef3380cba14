"""What one simulation group experienced in one rollout, written by a rollout worker and read by the learner.

The observation after step t is that before step t + 1 of the same environment, except where an episode ended and after
the last step. Only those are kept beside the steps (`finals`), so that no observation lies in memory twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    records. Where environments are reset by a step of its own, or agents do not act in each step, also `resets` bool,
    such rows: they are no transitions, and nothing is learned from them."""
    finals: Batch
    """[E, …], ordered by `rows`: `rows` int64, t · N + i of a step that ended an episode or is the last (t = T − 1);
    and `observations` after that step: the true last one of the episode, never that of the reset."""
    version: int
    """Updates that the weights which acted had seen."""
    memories: Batch | None = None
    """[⌈T / L⌉, N, …]: `memory`, a tree: what was remembered before each L-th step, where sequences begin that are L
    steps long; `finals` then have a column `memory`, too: what was remembered after those steps. None without one."""
    group: int = 0
    """Simulation group that made it."""
    parts: tuple[Rollout, ...] = ()
    """The rollouts of which several side by side are made."""
    agents: int = 1
    """Agents of each environment that have a row of their own."""
    in_turns: bool = False
    """Whether agents take turns: what is left at the end of each row, behind its transitions, are none."""

    @property
    def by_group(self) -> tuple[Rollout, ...]:
        """Each group's by itself, in the order in which they lie side by side; none where there are no steps."""
        return self.parts or ((self,) if self.steps.rows else ())

    @property
    def timesteps(self) -> int:
        """Environment steps in it, over all environments."""
        return self.steps.rows // self.agents

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return self.steps.shape[0], self.steps.shape[1]

    @property
    def transitions(self) -> np.ndarray | None:
        """[T, N] bool: which rows are transitions; None where all are."""
        return ~self.steps["resets"] if "resets" in self.steps else None

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
        """Several groups as one, in the order given; of none one without steps. Raises ValueError, naming the column,
        if shapes do not fit."""
        if not rollouts:
            return Rollout(Batch({"rewards": np.empty((0, 0), np.float32)}, 2), Batch({}), 0)
        if len(rollouts) == 1:
            return rollouts[0]
        kind = type(rollouts[0])
        if kind is not Rollout:
            return kind.side_by_side(rollouts)
        steps = Batch.side_by_side([rollout.steps for rollout in rollouts])
        width, before, finals = steps.shape[1], 0, []
        for rollout in rollouts:
            t, i = np.divmod(rollout.finals["rows"], rollout.shape[1])
            finals.append(rollout.finals.plus(rows=t * width + before + i))
            before += rollout.shape[1]
        joined = Batch.end_to_end(finals)
        given = [rollout.memories for rollout in rollouts if rollout.memories is not None]
        memories = Batch.side_by_side(given) if given else None
        finals_of_all = joined.take(np.argsort(joined["rows"], kind="stable"))
        first, parts = rollouts[0], tuple(rollouts)
        told: dict[str, Any] = {"agents": first.agents, "in_turns": first.in_turns}
        return Rollout(steps, finals_of_all, first.version, memories, parts=parts, **told)

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


def going_on(steps: Batch) -> np.ndarray:
    """[T, N] float32, of a rollout's steps: 1 where the row after it is the next step of the same episode, else 0; of
    the last ones, 1 where the episode has not ended."""
    found = ~(steps["terminations"] | steps["truncations"])
    if "resets" in steps:
        found[:-1] &= ~steps["resets"][1:]
    return found.astype(np.float32)
