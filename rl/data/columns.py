"""The columns in which observations and actions of a space are kept."""

from __future__ import annotations

import numpy as np
from gymnasium import Space

from ...envs import codec
from .batch import Column
from .replay import transition_columns
from .tree import Tree


def observation_columns(space: Space) -> Tree:
    """As the environment gives them: rows of the space's codec, records of a space with parts."""
    found = codec(space)
    return Column(found.shape, found.dtype)


def action_columns(space: Space) -> Column:
    """As the model gives them: counted from 0 (int64), or real numbers (float32); a Box flattened to one axis, the
    parts of a Dict or Tuple side by side as float32."""
    found = codec(space)
    if found.kind == "Discrete":
        return Column((), np.int64)
    components = sum(int(np.prod(leaf.shape)) for _, leaf in found.leaves())
    return Column((components,), np.float32 if found.kind == "Box" or found.is_nested else np.int64)


def replay_columns(observation_space: Space, action_space: Space) -> dict[str, Tree]:
    """The columns of a replay buffer between two spaces."""
    return transition_columns(observation_columns(observation_space), action_columns(action_space))


def rollout_columns(observation_space: Space, action_space: Space, *, resets: bool = False) -> dict[str, Tree]:
    """The columns that every rollout's steps have; an algorithm's records come beside them.

    `resets`: whether some steps may only have begun the next episode; these are marked in a column of that name.
    """
    return {
        "observations": observation_columns(observation_space),
        "actions": action_columns(action_space),
        "rewards": Column(),
        "terminations": Column(dtype=np.bool_),
        "truncations": Column(dtype=np.bool_),
        **({"resets": Column(dtype=np.bool_)} if resets else {}),
    }
