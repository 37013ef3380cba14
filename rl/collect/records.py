"""What a rollout has beside the vocabulary: the columns that an algorithm asks for, and what it makes of them once the
rollout is whole.

This module doesn't import torch (see `lazy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..data.batch import Column
from ..data.columns import rollout_columns
from ..data.rollout import Rollout
from ..data.tree import Tree
from ..declaration import Collecting
from ..models.spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
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


def _is_scratch(column: Tree) -> bool:
    return isinstance(column, Column) and column.scratch
