"""Gymnasium spaces: what depends on the kind of a space is asked of its codec, and nowhere else.

A policy works with plain numbers: a discrete action counts from 0, a continuous one may lie anywhere. What the
environment wants (a `start` offset, values within the bounds, the space's dtype) is made in one place,
`to_env_actions`, by rollout workers, evaluation and serving alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from ...runtime import InputError
from .base import MASK, LeafCodec, Role, SpaceCodec, part_of
from .nested import DictCodec, NestedCodec, TupleCodec
from .simple import BoxCodec, DiscreteCodec, MultiBinaryCodec, MultiDiscreteCodec
from .text import REMEDY, TextCodec

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple"

_SIMPLE: dict[type[Space], type[LeafCodec]] = {
    Box: BoxCodec,
    Discrete: DiscreteCodec,
    MultiDiscrete: MultiDiscreteCodec,
    MultiBinary: MultiBinaryCodec,
}
_NESTED: dict[type[Space], Any] = {Dict: DictCodec, Tuple: TupleCodec}
_BY_KIND: dict[str, Any] = {found.kind: found for found in (*_SIMPLE.values(), *_NESTED.values(), TextCodec)}

# What to do instead of each space that gymnasium has and Shoal does not take.
_REMEDIES = {
    "Text": REMEDY,
    "Sequence": "pad it to a Box of fixed size",
    "Graph": "encode the graph as a Box of fixed size",
    "OneOf": "encode the choice and its value as one Box",
}


def codec(space: Any, role: str = "the") -> SpaceCodec:
    """Return the codec of a space, whose role messages name.

    Raises:
        InputError: it is of a kind that is not supported; names it and what to do instead.
    """
    return TextCodec(space) if isinstance(space, Text) else _codec_of_numbers(space, role)


def _codec_of_numbers(space: Any, role: str) -> SpaceCodec:
    for ancestor in type(space).__mro__:
        if ancestor in _SIMPLE:
            return _SIMPLE[ancestor](space)
        if ancestor in _NESTED:
            return _NESTED[ancestor](space, partial(_codec_of_numbers, role=role))
    if not isinstance(space, Space):
        raise InputError(f"{space!r:.80} of type {type(space).__name__} is not a gymnasium space")
    remedy = _REMEDIES.get(type(space).__name__, "wrap the environment so that it uses one of them")
    raise InputError(f"{role} space {_short(space)} is not supported (supported: {SUPPORTED}); {remedy}")


def check_supported(space: Any, role: Role) -> None:
    """Refuse a space that policies cannot work with.

    Args:
        space: what the environment declares.
        role: whether it holds observations or actions; actions are restricted further: a Box must be of floating
            point, a MultiDiscrete one-dimensional.

    Raises:
        InputError: names the space, says what is supported and what to do instead.
    """
    if not isinstance(space, Space):
        raise InputError(
            f"{role}_space is {space!r} of type {type(space).__name__}, not a gymnasium space: "
            f"set self.{role}_space in the environment's __init__ to one of {SUPPORTED}"
        )
    codec(space, role).check_supported(role)


def are_texts(observation_space: Any, action_space: Any) -> bool:
    """Return whether both spaces hold texts: then what acts is a language model."""
    return isinstance(observation_space, Text) and isinstance(action_space, Text)


def to_env_actions(space: Space, actions: np.ndarray) -> np.ndarray:
    """Turn a policy's actions into rows of what `env.step` wants.

    * Discrete, MultiDiscrete: counted from 0 by the policy; the space's `start` is added.
    * Box: clipped to the space's bounds and cast to its dtype (the policy's unclipped action is what is learned from).
    * MultiBinary: cast to int8.
    * Dict, Tuple: so in each part.

    Args:
        space: the action space of one environment.
        actions: one action, or any number of leading axes of them: [..., *space.shape]; records of a nested space.

    Returns:
        an array of the same shape and the space's dtype.
    """
    return codec(space).to_env(actions)


def describe(space: Space) -> str:
    """Return a space in a few words, such as ``Box(4,) float32 in [-1, 1]`` or ``Discrete(2)``."""
    try:
        return codec(space).describe()
    except InputError:
        return _short(space)


def space_to_json(space: Space) -> dict[str, Any]:
    """Return a supported space as values that JSON can hold, exactly; infinite bounds are the texts "inf", "-inf".

    Raises:
        InputError: the space is of another kind.
    """
    return codec(space).to_json()


def space_from_json(description: Mapping[str, Any]) -> Space:
    """Return the space that `space_to_json` described.

    Raises:
        InputError: not such a description; the message names what is missing or wrong.
    """
    try:
        kind = description["type"]
        found = _BY_KIND.get(kind)
        if found is not None:
            more = (space_from_json,) if issubclass(found, NestedCodec) else ()
            return found.from_json(description, *more)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        if isinstance(error, InputError):  # of a part
            raise
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"not the description of a space: {description!r}: {what}") from error
    raise InputError(f"not the description of a space: type is {kind!r}, wanted one of {SUPPORTED}")


def as_batch(space: Space, data: Any) -> tuple[np.ndarray, bool]:
    """Return observations as rows [B, *shape] in the space's dtype (records of a nested space), and whether `data` was
    one observation alone.

    Beyond a Box's bounds is allowed here, since an environment may know better than its declaration; what would wrap
    around in the space's dtype, or is not finite in float32, is not.

    Args:
        space: one of the supported kinds.
        data: one observation or a batch of them, as arrays or nested lists, in dicts and tuples as the space has them.

    Raises:
        ValueError: wrong shape (the message names both), not numbers, not finite, or outside a discrete space.
    """
    return codec(space).as_batch(data)


def _short(value: object, limit: int = 120) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


__all__ = [
    "MASK",
    "SUPPORTED",
    "LeafCodec",
    "Role",
    "SpaceCodec",
    "TextCodec",
    "are_texts",
    "as_batch",
    "check_supported",
    "codec",
    "describe",
    "part_of",
    "space_from_json",
    "space_to_json",
    "to_env_actions",
]
