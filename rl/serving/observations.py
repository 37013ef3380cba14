"""The check of what a stranger sends: before it reaches a replica, where it would spoil the batch of others."""

from typing import Any

import numpy as np
from gymnasium import Space, spaces


def as_batch(space: Space, data: Any) -> tuple[np.ndarray, bool]:
    """Return observations as [rows, …] in the space's dtype, and whether `data` was one observation alone.

    Args:
        space: the policy's observation space.
        data: one observation or a batch of them, as an array or nested lists.

    Raises:
        ValueError: wrong shape (the message names both), not numbers, not finite, or outside a discrete space.
    """
    shape, dtype = space.shape, space.dtype
    assert shape is not None
    assert dtype is not None
    try:
        array = np.asarray(data)
    except ValueError:
        raise ValueError(f"observation is ragged: its rows differ in length; want shape {shape}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"observation holds {_kind(array)}; want numbers, shape {shape}, dtype {dtype}")
    single = array.shape == shape
    if not single and (array.shape[1:] != shape or array.ndim != len(shape) + 1):
        batch = ", ".join(["batch", *map(str, shape)]) + ("" if shape else ",")
        raise ValueError(f"observation has shape {array.shape}; want {shape}, or ({batch}) for a batch of them")
    if single:
        array = array[np.newaxis]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"observation{_at(index, single)} is {array[index]}; want a finite number")
    return _cast(space, array, dtype, single), single


def _cast(space: Space, array: np.ndarray, dtype: np.dtype[Any], single: bool) -> np.ndarray:
    if dtype.kind == "f":
        return np.ascontiguousarray(array, dtype)
    low, high = _integer_bounds(space, dtype)
    bad = (array < low) | (array > high) | (array != np.floor(array))
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        lowest, highest = (np.broadcast_to(bound, array.shape)[index] for bound in (low, high))
        value = array[index]
        raise ValueError(f"observation{_at(index, single)} is {value}; want an integer from {lowest} to {highest}")
    return np.ascontiguousarray(array, dtype)


def _integer_bounds(space: Space, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary) or dtype.kind == "b":
        return 0, 1
    limits = np.iinfo(dtype)  # Box: a value beyond its bounds may be right, one that wraps around is not
    return limits.min, limits.max


def _at(index: tuple[int, ...], single: bool) -> str:
    shown = index[1:] if single else index
    return f"[{', '.join(map(str, shown))}]" if shown else ""


def _kind(array: np.ndarray) -> str:
    return "text" if array.dtype.kind in "US" else f"values of type {array.dtype}"
