"""What an environment must return, as pure functions from a value to the sentence that says what is wrong with it.

`check` asks all of them; a simulation group asks them only once something did not fit, to say why.
"""

import math
import numbers
from typing import Any

import numpy as np
from gymnasium import Space

from .spaces import codec


def reset_problem(result: Any, space: Space, *, bounds: bool = True) -> str | None:
    """Return what is wrong with the result of `env.reset()`, or None; `bounds` as in `SpaceCodec.problem`."""
    if not isinstance(result, tuple) or len(result) != 2:
        return f"reset() returned {_kind(result)}; wanted the tuple (observation, info)"
    observation, info = result
    if not isinstance(info, dict):
        return f"reset() returned info {_short(info)} of type {type(info).__name__}; wanted a dict (it may be empty)"
    return _observation_problem(observation, space, "reset()", bounds)


def step_problem(result: Any, space: Space, *, bounds: bool = True) -> str | None:
    """Return what is wrong with the result of `env.step(action)`, or None; `bounds` as in `SpaceCodec.problem`."""
    if isinstance(result, tuple) and len(result) == 4:
        return (
            "step() returned 4 values (observation, reward, done, info); wanted 5: split done into terminated (the "
            "task ended) and truncated (it was cut off, as by a time limit): (observation, reward, terminated, "
            "truncated, info)"
        )
    if not isinstance(result, tuple) or len(result) != 5:
        return f"step() returned {_kind(result)}; wanted the tuple (observation, reward, terminated, truncated, info)"
    observation, reward, terminated, truncated, info = result
    wrong = flags_problem(terminated, truncated)
    if wrong is not None:
        return wrong
    if not isinstance(info, dict):
        return f"step() returned info {_short(info)} of type {type(info).__name__}; wanted a dict (it may be empty)"
    return _observation_problem(observation, space, "step()", bounds) or reward_problem(reward)


def flags_problem(terminated: Any, truncated: Any) -> str | None:
    """Return what is wrong with the end flags of a step, or None; the numbers 0 and 1 are taken."""
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_) and not (isinstance(flag, numbers.Real) and flag in (0, 1)):
            return f"step() returned {name} {_short(flag)} of type {type(flag).__name__}; wanted a bool: bool({name})"
    return None


def flags_note(terminated: Any, truncated: Any) -> str | None:
    """Return what to say of flags that fit, but are the numbers 0 or 1, as many had `done`: gymnasium's own checker
    warns of them, too. None if there is nothing to say."""
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            return (
                f"step() returned {name} {_short(flag)} of type {type(flag).__name__}, which counts as {bool(flag)}; "
                f"gymnasium wants a bool: bool({name})"
            )
    return None


def exit_problem(end: SystemExit, doing: str) -> str:
    """Return what is wrong with a call that asks for the end of its process: who called it is to hear what failed."""
    return f"{doing} called sys.exit({'' if end.code is None else repr(end.code)}); raise what failed instead"


def reward_problem(reward: Any) -> str | None:
    """Return what is wrong with a reward, or None."""
    if isinstance(reward, np.ndarray):
        return (
            f"step() returned reward {_short(reward)}, an array of shape {reward.shape}; wanted a float: float(reward)"
        )
    if isinstance(reward, bool | np.bool_) or not isinstance(reward, numbers.Real):
        remedy = ": float(reward)" if hasattr(reward, "__float__") else ""
        return f"step() returned reward {_short(reward)} of type {type(reward).__name__}; wanted a float{remedy}"
    try:
        return None if math.isfinite(reward) else f"step() returned reward {reward}; wanted a finite float"
    except OverflowError:  # of a whole number, which has no end
        return "step() returned a reward too large for a float; wanted a finite float"


def _observation_problem(observation: Any, space: Space, source: str, bounds: bool) -> str | None:
    wrong = codec(space).problem(observation, bounds=bounds)
    return None if wrong is None else f"{source} returned {wrong}"


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"{_short(value)} of type {type(value).__name__}"


def _short(value: object, limit: int = 80) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
