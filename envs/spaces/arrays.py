"""What an observation that is one array, or one number, must be. Networks compute in float32, so what is not finite
there is in no space: it would make every weight not finite."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from .base import LeafCodec


def array_problem(codec: LeafCodec, value: Any, path: str, *, bounds: bool) -> str | None:
    """Return what is wrong with an observation that should be an array of the space's shape."""
    if isinstance(value, np.generic) and codec.shape == ():
        value = np.asarray(value)
    name = codec.dtype.name
    if not isinstance(value, np.ndarray):
        hint = ""
        if isinstance(value, list | tuple | numbers.Number):
            hint = f": np.array(observation, dtype=np.{name})"
        return f"{_an_observation(path)} of type {type(value).__name__}; wanted a numpy array{hint}"
    if value.shape != codec.shape:
        return f"{_an_observation(path)} of shape {value.shape}; {_wants(codec, path)} {codec.shape}"
    if not np.can_cast(value.dtype, codec.dtype):
        return (
            f"{_an_observation(path)} of dtype {value.dtype}; {_wants(codec, path)} {codec.dtype}: "
            f"observation{path}.astype(np.{name})"
        )
    return value_problem(codec, value, path, bounds=bounds)


def integer_problem(codec: LeafCodec, value: Any, path: str) -> str | None:
    """Return what is wrong with an observation that should be an integer."""
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu":
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        what = " ".join(f"{value!r:.80}".split())
        return f"observation{path} {what} of type {type(value).__name__}; {_wants(codec, path)} an integer"
    low, high = (int(bound) for bound in codec.limits())
    if not low <= value <= high:
        return f"observation{path} = {value}; {_wants(codec, path)} {_wanted(low, high, True)}"
    return None


def value_problem(codec: LeafCodec, values: np.ndarray, path: str = "", *, bounds: bool = True) -> str | None:
    """Return what is wrong with the values of observations of the right shape; None if nothing is.

    `values` are numbers, [*shape] or any number of leading axes of them; `bounds` as in `limits`.
    """
    low, high = codec.limits(bounds=bounds)
    whole = codec.dtype.kind != "f"
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
    return f"observation{path}{where} = {values[index]}; {_wants(codec, path)} {wanted}{more}"


def array_as_batch(codec: LeafCodec, data: Any, path: str) -> tuple[np.ndarray, bool]:
    """Return observations as [rows, …] in the space's dtype, and whether `data` was one alone; see `as_batch`."""
    shape, dtype = codec.shape, codec.dtype
    try:
        array = np.asarray(data)
    except ValueError:
        raise ValueError(
            f"got {_an_observation(path)} that is ragged, its rows differ in length; {_wants(codec, path)} {shape}"
        ) from None
    if array.dtype.kind not in "fiub":
        kind = "text" if array.dtype.kind in "US" else f"values of type {array.dtype}"
        raise ValueError(
            f"got {_an_observation(path)} that holds {kind}; {_wants(codec, path)} numbers, {shape}, {dtype}"
        )
    single = array.shape == shape
    if not single and (array.shape[1:] != shape or array.ndim != len(shape) + 1):
        batch = f"({', '.join(['batch', *map(str, shape)])}{'' if shape else ','})"
        raise ValueError(
            f"got {_an_observation(path)} of shape {array.shape}; {_wants(codec, path)} {shape}, or {batch} for a "
            "batch of them"
        )
    wrong = value_problem(codec, array, path, bounds=False)
    if wrong is not None:
        raise ValueError(f"got {wrong}")
    rows = array[np.newaxis] if single else array
    return np.ascontiguousarray(rows, dtype), single


def largest(dtype: np.dtype[Any]) -> float:
    """Return the largest number that a dtype of floating point and float32 both hold."""
    return min(float(np.finfo(np.float32).max), float(np.finfo(dtype).max))


def _an_observation(path: str) -> str:
    return f"observation{path}" if path else "an observation"


def _wants(codec: LeafCodec, path: str) -> str:
    return f"observation_space{path} {codec.describe()} wants"


def _wanted(low: Any, high: Any, whole: bool) -> str:
    if whole:
        return f"an integer from {low} to {high}"
    most = largest(low.dtype)
    if -low < most and high < most:
        return f"a number from {low} to {high}"
    return "a finite number" + (f" ≥ {low}" if -low < most else f" ≤ {high}" if high < most else "")
