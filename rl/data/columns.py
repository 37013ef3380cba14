"""The columns in which observations and actions of a space are kept."""

from __future__ import annotations

import numpy as np
from gymnasium import Space, spaces

from .batch import Column
from .replay import transition_columns
from .tree import Tree


def observation_columns(space: Space) -> Tree:
    """As the environment gives them: the space's shape and dtype."""
    return Column(tuple(space.shape or ()), np.dtype(space.dtype))


def action_columns(space: Space) -> Column:
    """As the model gives them: counted from 0 (int64), or real numbers (float32); a Box flattened to one axis."""
    if isinstance(space, spaces.Discrete):
        return Column((), np.int64)
    components = int(np.prod(space.shape or ()))
    return Column((components,), np.float32 if isinstance(space, spaces.Box) else np.int64)


def replay_columns(observation_space: Space, action_space: Space) -> dict[str, Tree]:
    """The columns of a replay buffer between two spaces."""
    return transition_columns(observation_columns(observation_space), action_columns(action_space))


def rollout_columns(observation_space: Space, action_space: Space) -> dict[str, Tree]:
    """The columns that every rollout's steps have; an algorithm's records come beside them."""
    return {
        "observations": observation_columns(observation_space),
        "actions": action_columns(action_space),
        "rewards": Column(),
        "terminations": Column(dtype=np.bool_),
        "truncations": Column(dtype=np.bool_),
    }
