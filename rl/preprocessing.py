"""Between gymnasium's spaces and the network's rows of numbers: the torch-free half.

A row is what the network sees of one observation: a Box flattened, a Discrete one-hot, a MultiDiscrete as one-hots side by side, a MultiBinary as
zeros and ones. `policy.py` encodes to rows; actions come back from the distribution without offsets, and `environment_actions` makes of
them what `env.step` takes.
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

Space = spaces.Space


def row_size(space: Space) -> int:
    """Numbers in the row that stands for one observation of `space`."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.sum(space.nvec))
    return int(np.prod(space_shape(space)))


def space_shape(space: Space) -> tuple[int, ...]:
    """Shape of one element of `space`; () for Discrete."""
    return tuple(space.shape or ())


def is_image(space: Space) -> bool:
    """Whether `space` holds 8-bit images ([height, width, channels] or channels first), which are scaled to [0, 1]."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space_shape(space)) == 3


def action_row_shape(space: Space) -> tuple[int, ...]:
    """Shape of one action as the distribution gives it: () for Discrete, else one axis of all components."""
    return () if isinstance(space, spaces.Discrete) else (int(np.prod(space_shape(space))),)


def action_row_dtype(space: Space) -> np.dtype:
    """Dtype of actions as the distribution gives them: float32 for Box, else int64."""
    return np.dtype(np.float32 if isinstance(space, spaces.Box) else np.int64)


def environment_actions(space: Space, actions: np.ndarray) -> np.ndarray:
    """Actions [B, …] of the distribution as `env.step` takes them, [B, *space.shape]: a Box's clipped to its bounds, a Discrete's start added."""
    shaped = actions.reshape(len(actions), *space_shape(space))
    if isinstance(space, spaces.Box):
        return np.clip(shaped, space.low, space.high).astype(space.dtype)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return shaped + np.asarray(space.start, dtype=np.int64)
    return shaped.astype(space.dtype)
