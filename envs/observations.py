"""What an observation must be: the one validator that `check`, rollouts, policies and serving ask.

    problem     what an environment returned as one observation  →  the sentence that says what is wrong with it
    as_batch    what somebody passes to `act`                    →  rows in the space's dtype
    limits      the smallest and the largest value of each element, for a test of whole arrays at once:
                ((observations >= low) & (observations <= high)).all()

Networks compute in float32, so what is not finite there is in no space: it would make every weight not finite.
"""

import numbers
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from .spaces import describe


def limits(space: Space, *, bounds: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest value that each element may have: finite arrays of the space's shape.

    Args:
        space: one of the supported kinds.
        bounds: whether a Box's own bounds count; False: only what its dtype and float32 can hold. What is no Box has
            no values beyond its bounds.
    """
    shape, dtype = space.shape or (), np.dtype(space.dtype)
    low: Any
    high: Any
    if isinstance(space, Discrete):
        low, high = space.start, space.start + space.n - 1
    elif isinstance(space, MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    elif isinstance(space, MultiBinary) or dtype.kind == "b":
        low, high = 0, 1
    elif dtype.kind == "f":
        low, high = -_largest(dtype), _largest(dtype)
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if isinstance(space, Box) and bounds:
        low, high = np.maximum(low, space.low), np.minimum(high, space.high)
    kept = dtype if dtype.kind in "fiu" else np.dtype(np.int8)
    return np.broadcast_to(np.asarray(low, kept), shape), np.broadcast_to(np.asarray(high, kept), shape)


def problem(space: Space, observation: Any, *, bounds: bool = True) -> str | None:
    """Return what is wrong with an observation that an environment returned, with index, value and bound; None if
    nothing is.

    The sentence follows on "step() returned". An observation is a numpy array of the space's shape, in a dtype that
    casts to the space's without loss; of a Discrete space, an integer of any type. `bounds` as in `limits`.
    """
    if isinstance(space, Discrete):
        return _integer_problem(space, observation)
    if isinstance(observation, np.generic) and space.shape == ():
        observation = np.asarray(observation)
    if not isinstance(observation, np.ndarray):
        hint = ""
        if isinstance(observation, list | tuple | numbers.Number):
            hint = f": np.array(observation, dtype=np.{np.dtype(space.dtype).name})"
        return f"an observation of type {type(observation).__name__}; wanted a numpy array{hint}"
    if observation.shape != space.shape:
        return f"an observation of shape {observation.shape}; {_wants(space)} {space.shape}"
    if not np.can_cast(observation.dtype, np.dtype(space.dtype)):
        return (
            f"an observation of dtype {observation.dtype}; {_wants(space)} {space.dtype}: "
            f"observation.astype(np.{np.dtype(space.dtype).name})"
        )
    return value_problem(space, observation, bounds=bounds)


def value_problem(space: Space, values: np.ndarray, *, bounds: bool = True) -> str | None:
    """Return what is wrong with the values of observations of the right shape; None if nothing is.

    Args:
        space: one of the supported kinds.
        values: numbers, [*space.shape], or any number of leading axes of them.
        bounds: as in `limits`.
    """
    low, high = limits(space, bounds=bounds)
    whole = np.dtype(space.dtype).kind != "f"
    inside = (values >= low) & (values <= high)  # NaN compares false with everything, so ask for what is inside
    if whole and values.dtype.kind == "f":
        inside &= values == np.floor(values)
    if inside.all():
        return None
    outside = np.argwhere(~inside)
    index = tuple(outside[0].tolist())
    element = index[len(index) - low.ndim :]
    where = f"[{', '.join(map(str, index))}]" if index else ""
    more = f" ({len(outside)} values are outside)" if len(outside) > 1 else ""
    wanted = _wanted(low[element], high[element], whole)
    return f"observation{where} = {values[index]}; {_wants(space)} {wanted}{more}"


def as_batch(space: Space, data: Any) -> tuple[np.ndarray, bool]:
    """Return observations as [rows, …] in the space's dtype, and whether `data` was one observation alone.

    Beyond a Box's bounds is allowed here, since an environment may know better than its declaration; what would wrap
    around in the space's dtype, or is not finite in float32, is not.

    Args:
        space: one of the supported kinds.
        data: one observation or a batch of them, as an array or nested lists.

    Raises:
        ValueError: wrong shape (the message names both), not numbers, not finite, or outside a discrete space.
    """
    shape, dtype = space.shape or (), np.dtype(space.dtype)
    try:
        array = np.asarray(data)
    except ValueError:
        raise ValueError(
            f"got an observation that is ragged, its rows differ in length; {_wants(space)} {shape}"
        ) from None
    if array.dtype.kind not in "fiub":
        kind = "text" if array.dtype.kind in "US" else f"values of type {array.dtype}"
        raise ValueError(f"got an observation that holds {kind}; {_wants(space)} numbers, {shape}, {dtype}")
    single = array.shape == shape
    if not single and (array.shape[1:] != shape or array.ndim != len(shape) + 1):
        batch = f"({', '.join(['batch', *map(str, shape)])}{'' if shape else ','})"
        raise ValueError(
            f"got an observation of shape {array.shape}; {_wants(space)} {shape}, or {batch} for a batch of them"
        )
    wrong = value_problem(space, array, bounds=False)
    if wrong is not None:
        raise ValueError(f"got {wrong}")
    rows = array[np.newaxis] if single else array
    return np.ascontiguousarray(rows, dtype), single


def _integer_problem(space: Discrete, observation: Any) -> str | None:
    if isinstance(observation, np.ndarray) and observation.shape == () and observation.dtype.kind in "iu":
        observation = observation[()]
    if isinstance(observation, bool | np.bool_) or not isinstance(observation, int | np.integer):
        what = " ".join(f"{observation!r:.80}".split())
        return f"observation {what} of type {type(observation).__name__}; {_wants(space)} an integer"
    low, high = int(space.start), int(space.start + space.n - 1)
    if not low <= observation <= high:
        return f"observation = {observation}; {_wants(space)} {_wanted(low, high, True)}"
    return None


def _wants(space: Space) -> str:
    return f"observation_space {describe(space)} wants"


def _largest(dtype: np.dtype[Any]) -> float:
    return min(float(np.finfo(np.float32).max), float(np.finfo(dtype).max))


def _wanted(low: Any, high: Any, whole: bool) -> str:
    if whole:
        return f"an integer from {low} to {high}"
    largest = _largest(low.dtype)
    if -low < largest and high < largest:
        return f"a number from {low} to {high}"
    return "a finite number" + (f" ≥ {low}" if -low < largest else f" ≤ {high}" if high < largest else "")
