"""Whether an environment's two spaces are whole: gymnasium checks them when they are made, not what is set later."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from ..runtime import InputError
from .spaces import Role, check_supported, describe


def spaces_problem(env: gymnasium.Env) -> str | None:
    """Return what is wrong with an environment's spaces, or None.

    Raises:
        InputError: a space that is not supported.
    """
    roles: tuple[Role, Role] = ("observation", "action")
    for role in roles:
        space = getattr(env, f"{role}_space", None)
        if space is None:
            return f"it sets no {role}_space: set self.{role}_space in __init__, such as gymnasium.spaces.Box(…)"
        wrong = _problem(space, f"{role}_space")
        if wrong is not None:
            return wrong
        check_supported(space, role)
    return None


def _problem(space: Any, name: str) -> str | None:
    if isinstance(space, Box):
        return _box_problem(space, name)
    if isinstance(space, Discrete) and space.n < 1:
        return f"{name} is Discrete({space.n}), which has no element: n must be at least 1"
    if isinstance(space, MultiDiscrete):
        start = np.shape(getattr(space, "start", space.nvec))
        if start != space.nvec.shape:
            return f"{name} has start of shape {start}; wanted that of nvec, {space.nvec.shape}"
        if (space.nvec < 1).any():
            return f"{name} is MultiDiscrete({space.nvec.tolist()}): each number of choices must be at least 1"
    if isinstance(space, MultiBinary) and np.any(np.asarray(space.n) < 1):
        return f"{name} is MultiBinary({space.n}), which has no element: n must be at least 1"
    return None


def _box_problem(space: Box, name: str) -> str | None:
    for bound, values in (("low", space.low), ("high", space.high)):
        if np.shape(values) != space.shape:
            return (
                f"{name} is a Box of shape {space.shape} with {bound} of shape {np.shape(values)}; both must be equal"
            )
        if np.asarray(values).dtype.kind not in "fiub":
            return f"{name} is a Box whose {bound} is {values!r:.80}; wanted numbers"
    wrong = np.argwhere(~(space.low <= space.high))
    if not len(wrong):
        return None
    index = tuple(wrong[0].tolist())
    return f"{name} {describe(space)} has low{list(index)} = {space.low[index]} above high = {space.high[index]}"


def check_spaces(env: gymnasium.Env, environment_id: str) -> str | None:
    """Return what is wrong with the spaces; as `spaces_problem`, with the environment's id in what it raises."""
    try:
        return spaces_problem(env)
    except InputError as error:
        raise type(error)(f"environment {environment_id!r}: {error}") from None
