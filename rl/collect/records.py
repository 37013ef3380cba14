"""What a rollout has beside the vocabulary: the columns that an algorithm asks for, and what it makes of them once the
rollout is whole.

This module doesn't import torch (see `lazy`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import GroupStep
from ..data.batch import Batch, Column
from ..data.columns import rollout_columns
from ..data.rollout import Rollout
from ..data.tree import Tree, tree_map
from ..declaration import Collecting
from ..models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.model import Model


def recorded_columns(algorithm: type[Collecting], spec: ModelSpec, *, resets: bool) -> dict[str, Tree]:
    """The columns of a rollout's steps; `resets`: whether some may be no transitions."""
    return algorithm.records(spec) | rollout_columns(spec.observation_space, spec.action_space, resets=resets)


def finish_rollout(algorithm: type[Collecting], model: Model, rollout: Rollout, config: Any) -> Rollout:
    """A rollout with what the algorithm knows once it is whole, and without what is only for the worker."""
    records, steps = algorithm.records(model.spec), rollout.steps
    algorithm.finish(model, rollout, config)
    if not records:
        return rollout
    flat = steps.flat()
    model.check_finite(flat["observations"], **flat.only(list(records)))
    kept = [name for name in steps if not _is_scratch(records.get(name))]
    return replace(rollout, steps=steps.only(kept))


def arrays_of(memory: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A memory as arrays that nothing else holds."""
    return {name: leaf.numpy().copy() for name, leaf in memory.items()}


def joined(arrays: Sequence[Any]) -> np.ndarray:
    """Arrays of one shape and dtype, each in one piece, on top of each other: a memory that cannot be written. Their
    bytes are joined in a seventh of the time of `np.concatenate`, of which thousands are as small as a group's."""
    first = arrays[0]
    return np.frombuffer(b"".join(arrays), first.dtype).reshape(-1, *first.shape[1:])


class Ends:
    """Where something ended in a rollout [T, N]: writes the columns that say so, and keeps what was seen last."""

    def __init__(self, batch: Batch) -> None:
        self._steps, self._size = batch.shape
        self._terminations, self._truncations = batch["terminations"], batch["truncations"]
        self._resets = batch.get("resets")
        for column in (self._terminations, self._truncations, self._resets):  # written where something ended
            if column is not None:
                column[...] = False
        self._noted: list[tuple[int, GroupStep, Tree]] = []
        self._rows: list[np.ndarray] = []
        self._observations: list[np.ndarray] = []
        self._memories: list[Tree] = []

    def note(self, t: int, step: GroupStep, memory: Tree) -> None:
        """Take note of a step that ended something, which the last one always does; `memory` is that after it."""
        self._noted.append((t, step, memory))

    def write(self) -> None:
        """Write down what was noted."""
        if not self._noted:
            return
        times, steps, memories = zip(*self._noted, strict=True)
        self._noted.clear()
        has_last, first = times[-1] == self._steps - 1, steps[0]
        if has_last and len(steps) == 1 and not first.episodes and first.resets is None:
            # Most rollouts of a few steps, of which thousands are made in a second.
            self._keep(np.arange(times[0] * self._size, (times[0] + 1) * self._size), first.final_observations)
            if memories[0] is not None:
                self._memories.append(memories[0])
            return
        at = np.array(times)
        terminations, truncations = (
            joined(flags).reshape(-1, self._size)
            for flags in ([step.terminations for step in steps], [step.truncations for step in steps])
        )
        self._terminations[at], self._truncations[at] = terminations, truncations & ~terminations
        over = terminations | truncations
        if self._resets is not None:
            none = np.zeros(self._size, np.bool_)
            self._resets[at] = resets = np.array([none if step.resets is None else step.resets for step in steps])
            over &= ~resets
        if has_last:
            over[-1] = True
        which, rows = over.nonzero()
        chosen = over.reshape(-1)
        self._keep(at[which] * self._size + rows, joined([step.final_observations for step in steps])[chosen])
        if memories[0] is not None:
            self._memories.append(tree_map(lambda *leaves: np.concatenate(leaves)[chosen], *memories))

    def _keep(self, rows: np.ndarray, observations: np.ndarray) -> None:
        self._rows.append(rows)
        self._observations.append(observations)

    def finals(self) -> Batch:
        """What was seen last where something ended, in order: `rows` (t · N + i), `observations`, and `memory` where
        there is one."""
        finals = {"rows": np.concatenate(self._rows), "observations": np.concatenate(self._observations)}
        if self._memories:
            finals["memory"] = tree_map(lambda *parts: np.concatenate(parts), *self._memories)
        return Batch(finals)


def _is_scratch(column: Tree) -> bool:
    return isinstance(column, Column) and column.scratch
