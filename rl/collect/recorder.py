"""Writing down a rollout while it is made: where it is to lie, once; and what is known of it only when it is whole.

This module doesn't import torch (see `lazy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.batch import Batch, Column
from ..data.columns import rollout_columns
from ..data.rollout import Rollout
from ..data.tree import Tree, as_array, leaves, tree_map
from ..declaration import Collecting
from ..models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.model import Model


def recorded_columns(algorithm: type[Collecting], spec: ModelSpec, *, resets: bool) -> dict[str, Tree]:
    """The columns of a rollout's steps; `resets`: whether some may be no transitions."""
    return algorithm.records(spec) | rollout_columns(spec.observation_space, spec.action_space, resets=resets)


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
        resets: bool,
        shared: bool = True,
    ) -> None:
        self._algorithm, self._sequence_length = algorithm, spec.sequence_length
        self._batch = batch = Batch.allocate(columns, *shape, shared=shared)
        self._shared = shared
        self._columns = dict(batch)
        self._observations, self._actions = batch["observations"], batch["actions"]
        self._rewards, self._terminations, self._truncations = (
            batch[name] for name in ("rewards", "terminations", "truncations")
        )
        self._resets = batch["resets"] if resets else None
        for column in (self._terminations, self._truncations, self._resets):  # written where something ended
            if column is not None:
                column[...] = False
        self._rows: list[np.ndarray] = []
        self._finals: list[np.ndarray] = []
        self._memories: list[Tree] = []
        self._final_memories: list[Tree] = []

    def remember(self, t: int, memory: Any) -> None:
        """Write down what is remembered before step t, if a sequence begins there."""
        if t % self._sequence_length == 0:
            self._memories.append(arrays_of(memory))

    def acted(self, t: int, observations: np.ndarray, acted: Any) -> np.ndarray:
        """Write down what the model saw and chose at step t; returns the actions."""
        self._observations[t] = observations
        actions = as_array(acted.actions)
        self._actions[t] = actions
        for name, values in acted.records.items():
            self._columns[name][t] = as_array(values)
        return actions

    def stepped(self, t: int, step: Any, memory: Any) -> None:
        """Write down what came of it; `memory` is that after the step, before anything is forgotten."""
        self._rewards[t] = step.rewards
        steps, size = self._batch.shape
        last = t == steps - 1
        if last or step.episodes or step.resets is not None:
            self._terminations[t] = step.terminations
            self._truncations[t] = step.truncations & ~step.terminations
            over = step.terminations | step.truncations
            if step.resets is not None:
                assert self._resets is not None
                self._resets[t] = step.resets
                over &= ~step.resets
            ended = np.arange(size) if last else over.nonzero()[0]
            self._rows.append(t * size + ended)
            self._finals.append(step.final_observations[ended])
            if memory is not None:
                self._final_memories.append(tree_map(lambda leaf: leaf[ended], arrays_of(memory)))

    def finish(self, model: Model, config: Any, version: int, group: int = 0) -> Rollout:
        """The whole rollout, with what the algorithm knows only now."""
        rollout = Rollout(self._batch, self._finals_of(), version, self._memories_of(), group)
        rollout = finish_rollout(self._algorithm, model, rollout, config)
        if not self._shared:
            for _, leaf in leaves(dict(rollout.steps)):
                leaf.setflags(write=False)  # as what comes from the object store is: nobody learns on this memory
        return rollout

    def _finals_of(self) -> Batch:
        finals = {"rows": np.concatenate(self._rows), "observations": np.concatenate(self._finals)}
        if self._final_memories:
            finals["memory"] = tree_map(lambda *parts: np.concatenate(parts), *self._final_memories)
        return Batch(finals)

    def _memories_of(self) -> Batch | None:
        if not self._memories:
            return None
        return Batch({"memory": tree_map(lambda *parts: np.stack(parts), *self._memories)}, 2)


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


def _is_scratch(column: Tree) -> bool:
    return isinstance(column, Column) and column.scratch
