"""What an environment must return, as pure functions from a value to the sentence that says what is wrong with it.

`check` asks all of them; a simulation group asks them only once something did not fit, to say why.
"""

import math
import numbers
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from .spaces import describe


def reset_problem(result: Any, space: Space) -> str | None:
    """Return what is wrong with the result of `env.reset()`, or None."""
    if not isinstance(result, tuple) or len(result) != 2:
        return f"reset() returned {_kind(result)}; wanted the tuple (observation, info)"
    observation, info = result
    if not isinstance(info, dict):
        return f"reset() returned info {_short(info)} of type {type(info).__name__}; wanted a dict (it may be empty)"
    return observation_problem(observation, space, "reset()")


def step_problem(result: Any, space: Space) -> str | None:
    """Return what is wrong with the result of `env.step(action)`, or None."""
    if isinstance(result, tuple) and len(result) == 4:
        return (
            "step() returned 4 values (observation, reward, done, info); wanted 5: split done into terminated (the "
            "task ended) and truncated (it was cut off, as by a time limit): (observation, reward, terminated, "
            "truncated, info)"
        )
    if not isinstance(result, tuple) or len(result) != 5:
        return f"step() returned {_kind(result)}; wanted the tuple (observation, reward, terminated, truncated, info)"
    observation, reward, terminated, truncated, info = result
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            return f"step() returned {name} {_short(flag)} of type {type(flag).__name__}; wanted a bool: bool({name})"
    if not isinstance(info, dict):
        return f"step() returned info {_short(info)} of type {type(info).__name__}; wanted a dict (it may be empty)"
    return observation_problem(observation, space, "step()") or reward_problem(reward)


def reward_problem(reward: Any) -> str | None:
    """Return what is wrong with a reward, or None."""
    if isinstance(reward, np.ndarray):
        return (
            f"step() returned reward {_short(reward)}, an array of shape {reward.shape}; wanted a float: float(reward)"
        )
    if isinstance(reward, bool | np.bool_) or not isinstance(reward, numbers.Real):
        return f"step() returned reward {_short(reward)} of type {type(reward).__name__}; wanted a float"
    if not math.isfinite(reward):
        return f"step() returned reward {reward}; wanted a finite float"
    return None


def observation_problem(observation: Any, space: Space, source: str) -> str | None:
    """Return why an observation is not in its space, with the index, value and bound; None if it is in it.

    Args:
        observation: what the environment returned.
        space: one of the supported kinds.
        source: what returned it, such as "step()".
    """
    if isinstance(space, Discrete):
        return _discrete_problem(observation, space, source)
    if not isinstance(observation, np.ndarray):
        if isinstance(observation, list | tuple | numbers.Number) and space.shape is not None:
            dtype = np.dtype(space.dtype).name
            hint = f": np.array(observation, dtype=np.{dtype})"
        else:
            hint = ""
        return f"{source} returned an observation of type {type(observation).__name__}; wanted a numpy array{hint}"
    if observation.shape != space.shape:
        return (
            f"{source} returned an observation of shape {observation.shape}; observation_space {describe(space)} wants "
            f"{space.shape}"
        )
    if not np.can_cast(observation.dtype, np.dtype(space.dtype)):
        return (
            f"{source} returned an observation of dtype {observation.dtype}; observation_space {describe(space)} wants "
            f"{space.dtype}: observation.astype(np.{np.dtype(space.dtype).name})"
        )
    return _bounds_problem(observation, space, source)


def _discrete_problem(observation: Any, space: Discrete, source: str) -> str | None:
    if isinstance(observation, np.ndarray) and observation.shape == () and observation.dtype.kind in "iu":
        observation = observation[()]
    if isinstance(observation, bool | np.bool_) or not isinstance(observation, int | np.integer):
        what = f"{_short(observation)} of type {type(observation).__name__}"
        return f"{source} returned observation {what}; observation_space {describe(space)} wants an integer"
    low, high = int(space.start), int(space.start + space.n - 1)
    if not low <= observation <= high:
        return f"{source} returned observation {observation}, outside observation_space {describe(space)}: {low}…{high}"
    return None


def _bounds_problem(observation: np.ndarray, space: Space, source: str) -> str | None:
    if isinstance(space, Box):
        low, high = space.low, space.high
    elif isinstance(space, MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    else:
        assert isinstance(space, MultiBinary)
        low, high = np.zeros(space.shape), np.ones(space.shape)
    # NaN compares false with everything, so ask for what is inside.
    outside = np.argwhere(~((observation >= low) & (observation <= high)))
    if not len(outside):
        return None
    index = tuple(outside[0].tolist())
    value, where = observation[index], f"[{', '.join(map(str, index))}]" if index else ""
    bound = f"≥ {low[index]}" if value < low[index] else f"≤ {high[index]}"
    wanted = f"a number in [{low[index]}, {high[index]}]" if np.isnan(value) else bound
    more = f" ({len(outside)} values are outside)" if len(outside) > 1 else ""
    return f"{source} returned observation{where} = {value}; observation_space {describe(space)} wants {wanted}{more}"


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"{_short(value)} of type {type(value).__name__}"


def _short(value: object, limit: int = 80) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
