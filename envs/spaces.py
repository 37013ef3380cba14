"""Gymnasium spaces: which are supported, how a policy's action becomes an environment's, and spaces as JSON.

A policy works with plain numbers: a discrete action counts from 0, a continuous one may lie anywhere. What the
environment wants (a `start` offset, values within the bounds, the space's dtype) is made in one place,
`to_env_actions`, by rollout workers, evaluation and serving alike.
"""

from typing import Any, Literal

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from ..runtime import InputError

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary"

Role = Literal["observation", "action"]

# What to do instead of each space that gymnasium has and Shoal does not take.
_REMEDIES = {
    "Dict": "flatten it with gymnasium.wrappers.FlattenObservation, or concatenate its parts into one Box",
    "Tuple": "flatten it with gymnasium.wrappers.FlattenObservation, or concatenate its parts into one Box",
    "Text": "encode the text as a Box or MultiDiscrete of fixed size",
    "Sequence": "pad it to a Box of fixed size",
    "Graph": "encode the graph as a Box of fixed size",
    "OneOf": "encode the choice and its value as one Box",
}


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
    if not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
        kind = type(space).__name__
        remedy = _REMEDIES.get(kind, "wrap the environment so that it uses one of them")
        if role == "action" and kind in ("Dict", "Tuple"):
            remedy = "wrap the environment with gymnasium.ActionWrapper so that it takes one Box or MultiDiscrete"
        raise InputError(f"{role} space {_short(space)} is not supported (supported: {SUPPORTED}); {remedy}")
    if 0 in (space.shape or ()):
        raise InputError(f"{role} space {_short(space)} holds nothing: its shape {space.shape} has a zero")
    if isinstance(space, Box) and space.dtype.kind not in "fiub":
        raise InputError(f"{role} space {_short(space)} has dtype {space.dtype}; wanted a float, integer or bool dtype")
    if role == "action":
        _check_action_space(space)


def _check_action_space(space: Space) -> None:
    if isinstance(space, Box) and space.dtype.kind != "f":
        raise InputError(
            f"action space {describe(space)} has dtype {space.dtype}, but continuous actions are floats: "
            "declare it with dtype=np.float32, or as Discrete or MultiDiscrete if the action is a choice"
        )
    if isinstance(space, MultiDiscrete) and space.nvec.ndim != 1:
        raise InputError(
            f"action space {describe(space)} has {space.nvec.ndim} dimensions, but a MultiDiscrete action has one: "
            f"declare it as MultiDiscrete({space.nvec.ravel().tolist()}) and reshape inside the environment"
        )


def to_env_actions(space: Space, actions: np.ndarray) -> np.ndarray:
    """Turn a policy's actions into what `env.step` wants.

    * Discrete, MultiDiscrete: counted from 0 by the policy; the space's `start` is added.
    * Box: clipped to the space's bounds and cast to its dtype (the policy's unclipped action is what is learned from).
    * MultiBinary: cast to int8.

    Args:
        space: the action space of one environment.
        actions: one action, or any number of leading axes of them: [..., *space.shape].

    Returns:
        an array of the same shape and the space's dtype; never `actions` itself for a Box.
    """
    if isinstance(space, Box):
        return np.clip(actions, space.low, space.high).astype(space.dtype, copy=False)
    values = np.asarray(actions, dtype=space.dtype)
    if isinstance(space, Discrete):
        return values + space.start if space.start else values
    if isinstance(space, MultiDiscrete):
        return values + space.start
    return values


def describe(space: Space) -> str:
    """Return a space in a few words, such as ``Box(4,) float32 in [-1, 1]`` or ``Discrete(2)``."""
    if isinstance(space, Box):
        return f"Box{space.shape} {space.dtype} in [{_bound(space.low, min)}, {_bound(space.high, max)}]"
    if isinstance(space, Discrete):
        return f"Discrete({space.n})" if space.start == 0 else f"Discrete({space.n}, start={space.start})"
    if isinstance(space, MultiDiscrete):
        start = f", start={space.start.tolist()}" if space.start.any() else ""
        return f"MultiDiscrete({space.nvec.tolist()}{start})"
    if isinstance(space, MultiBinary):
        return f"MultiBinary({space.n})"
    return _short(space)


def space_to_json(space: Space) -> dict[str, Any]:
    """Return a supported space as values that JSON can hold, exactly; infinite bounds are the texts "inf", "-inf".

    Raises:
        InputError: the space is of another kind.
    """
    if isinstance(space, Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": space.dtype.name,
            "low": _bounds_to_json(space.low),
            "high": _bounds_to_json(space.high),
        }
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
    if isinstance(space, MultiDiscrete):
        nvec, start = space.nvec.tolist(), space.start.tolist()
        return {"type": "MultiDiscrete", "nvec": nvec, "start": start, "dtype": space.dtype.name}
    if isinstance(space, MultiBinary):
        return {"type": "MultiBinary", "n": int(space.n) if isinstance(space.n, int) else [int(n) for n in space.n]}
    raise InputError(f"space {_short(space)} cannot be written as JSON (supported: {SUPPORTED})")


def space_from_json(description: dict[str, Any]) -> Space:
    """Return the space that `space_to_json` described.

    Raises:
        InputError: not such a description; the message names what is missing or wrong.
    """
    try:
        kind = description["type"]
        if kind == "Box":
            shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
            low, high = (_bounds_from_json(description[key], shape, dtype) for key in ("low", "high"))
            return Box(low, high, shape=shape, dtype=dtype.type)
        if kind == "Discrete":
            return Discrete(description["n"], start=description["start"], dtype=np.dtype(description["dtype"]).type)
        if kind == "MultiDiscrete":
            dtype = np.dtype(description["dtype"])
            nvec, start = (np.array(description[key], dtype=dtype) for key in ("nvec", "start"))
            return MultiDiscrete(nvec, dtype=dtype.type, start=start)
        if kind == "MultiBinary":
            return MultiBinary(description["n"])
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"not the description of a space: {description!r}: {what}") from error
    raise InputError(f"not the description of a space: type is {kind!r}, wanted one of {SUPPORTED}")


def _bounds_to_json(bounds: np.ndarray) -> Any:
    """Give one number where all bounds are equal (images have thousands), else all of them in C order."""
    values = [value if np.isfinite(value) else str(value) for value in bounds.ravel().tolist()]
    return values[0] if len(set(values)) == 1 else values


def _bounds_from_json(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if isinstance(value, list):
        return np.array([float(v) if isinstance(v, str) else v for v in value], dtype=dtype).reshape(shape)
    return np.full(shape, float(value) if isinstance(value, str) else value, dtype=dtype)


def _bound(bounds: np.ndarray, outermost: Any) -> str:
    values = np.unique(bounds)
    return f"{values[0]:g}" if len(values) == 1 else f"{outermost(values):g}…"


def _short(value: object, limit: int = 120) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def smallest_dtype(space: Space) -> np.dtype:
    """Return the smallest dtype that holds each action of a space exactly; a log of discrete actions is kept in it."""
    if isinstance(space, Discrete):
        return _integers_between(int(space.start), int(space.start + space.n - 1))
    if isinstance(space, MultiDiscrete):
        return _integers_between(int(space.start.min()), int((space.start + space.nvec).max()) - 1)
    return np.dtype(space.dtype)


def _integers_between(low: int, high: int) -> np.dtype:
    return np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
