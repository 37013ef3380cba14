"""Observations and actions as the protocol writes them, and back, along their space: what is deeper or longer than the
space is never looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..proto.shoal_simulators_pb2 import Array, Items, Parts, Value
from ..spaces import LeafCodec, SpaceCodec

_MOST_NAMES = 5
"""Keys, or axes, that a message names."""


def encode(value: Any) -> Value:
    """Return an observation or action, an array or number, or dicts and tuples of them, as the protocol writes it.

    An array is sent as its bytes; numbers and lists as numbers, which are cast to what the space has.

    Raises:
        TypeError: something in it is neither.
    """
    if isinstance(value, Mapping):
        return Value(parts=Parts(parts={str(key): encode(part) for key, part in value.items()}))
    if isinstance(value, tuple):
        return Value(items=Items(items=[encode(part) for part in value]))
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{value!r:.80} of type {type(value).__name__} is no number and no array of numbers")
    if isinstance(value, np.ndarray | np.generic):
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        return Value(array=Array(dtype=array.dtype.name, shape=array.shape, data=data))
    return Value(array=Array(shape=array.shape, numbers=array.ravel().tolist()))


def encode_numbers(value: Any) -> Value:
    """Return an action of an environment with its numbers written out: other languages read those most easily."""
    if isinstance(value, Mapping):
        return Value(parts=Parts(parts={key: encode_numbers(part) for key, part in value.items()}))
    if isinstance(value, tuple):
        return Value(items=Items(items=[encode_numbers(part) for part in value]))
    array = np.asarray(value)
    return Value(array=Array(dtype=array.dtype.name, shape=array.shape, numbers=array.ravel().tolist()))


def decode(value: Value, codec: SpaceCodec, what: str = "observation") -> Any:
    """Return an element with the nesting, shapes and dtypes of a space; whether its values lie in it is not asked.

    Raises:
        ValueError: another nesting, shape or dtype, or a number that the dtype does not hold; names the part, which
            lies in `what`.
    """
    if isinstance(codec, LeafCodec):
        return _decode_array(value, codec, what)
    parts: Mapping[str, SpaceCodec] = codec.parts  # type: ignore[attr-defined]
    kind, wanted = value.WhichOneof("kind"), "parts" if codec.kind == "Dict" else "items"
    if kind != wanted:
        raise ValueError(f"{what} is {_kind(kind)}; {codec.describe()} wants {_kind(wanted)}")
    if wanted == "items":
        items = value.items.items
        if len(items) != len(parts):
            raise ValueError(f"{what} has {len(items)} items; {codec.describe()} wants {len(parts)}")
        return tuple(
            decode(item, part, f"{what}[{name}]") for item, (name, part) in zip(items, parts.items(), strict=True)
        )
    given = value.parts.parts
    if given.keys() != parts.keys():
        raise ValueError(f"{what} has the parts {_names(given)}; wanted are {_names(parts)}")
    return {name: decode(given[name], part, f"{what}[{name!r}]") for name, part in parts.items()}


def to_row(element: Any, codec: SpaceCodec) -> np.ndarray:
    """Return an element as one row of a space's codec, [1, …]."""
    rows = np.empty((1, *codec.shape), codec.dtype)
    rows[0] = codec.pack(element)
    return rows


def longest_message(*codecs: SpaceCodec) -> int:
    """Return the bytes that a request with an element of each space takes at most, in the longer of its two forms."""
    leaves = [leaf for codec in codecs for _, leaf in codec.leaves()]
    return sum(math.prod(leaf.shape) * max(8, leaf.dtype.itemsize) + 256 for leaf in leaves)


def _decode_array(value: Value, leaf: LeafCodec, what: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind != "array":
        raise ValueError(f"{what} is {_kind(kind)}; {leaf.describe()} wants {_kind('array')}")
    array = value.array
    shape, size = tuple(array.shape), math.prod(leaf.shape)
    as_numbers = not array.data and not (size == 0 and array.dtype)
    if shape != leaf.shape and not (as_numbers and not shape and len(array.numbers) == size):
        shown = f"({', '.join(map(str, shape[:_MOST_NAMES]))}{', …' if len(shape) > _MOST_NAMES else ''})"
        raise ValueError(f"{what} is of shape {shown}; {leaf.describe()} wants {leaf.shape}")
    found = (
        _cast(np.array(array.numbers, np.float64), leaf, what, size) if as_numbers else _from_bytes(array, leaf, what)
    )
    found = found.reshape(leaf.shape)
    return found if leaf.shape else found[()]


def _from_bytes(array: Array, leaf: LeafCodec, what: str) -> np.ndarray:
    if array.dtype != leaf.dtype.name:
        raise ValueError(
            f"{what} has dtype {array.dtype[:40]!r}; {leaf.describe()} wants {leaf.dtype.name!r} for bytes in data "
            "(numbers are cast)"
        )
    wanted = math.prod(leaf.shape) * leaf.dtype.itemsize
    if len(array.data) != wanted or array.numbers:
        also = " and numbers beside them" if array.numbers else ""
        raise ValueError(f"{what} has {len(array.data)} bytes of data{also}; {leaf.describe()} wants {wanted}")
    return np.frombuffer(array.data, leaf.dtype.newbyteorder("<")).astype(leaf.dtype, copy=False)


def _cast(numbers: np.ndarray, leaf: LeafCodec, what: str, size: int) -> np.ndarray:
    if len(numbers) != size:
        raise ValueError(f"{what} has {len(numbers)} numbers; {leaf.describe()} wants {size}")
    if leaf.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is not finite, which the check of values says
            return numbers.astype(leaf.dtype)
    low, high = (0, 1) if leaf.dtype.kind == "b" else (np.iinfo(leaf.dtype).min, np.iinfo(leaf.dtype).max)
    wrong = ~((numbers >= low) & (numbers <= high) & (numbers == np.floor(numbers)))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"{what}: number {index} is {numbers[index]:g}; {leaf.describe()} wants whole ones")
    return numbers.astype(leaf.dtype)


def _kind(kind: str | None) -> str:
    return {"array": "an array", "parts": "named parts", "items": "a list of items", None: "nothing"}[kind]


def _names(parts: Mapping[str, Any]) -> str:
    names = sorted(parts)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(f"{name[:40]!r}" for name in names[:_MOST_NAMES]) + more or "none"
