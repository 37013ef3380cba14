"""Why an environment is not deterministic: which wrapper carries something on, which calls no seed reaches."""

import linecache
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FrameType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

# Functions whose result no seed decides, by module and name.
_UNSEEDED = {
    ("posix", "urandom"): "the system's random numbers",
    ("nt", "urandom"): "the system's random numbers",
    ("time", "time"): "the clock",
    ("time", "time_ns"): "the clock",
    ("time", "monotonic"): "the clock",
    ("time", "monotonic_ns"): "the clock",
    ("time", "perf_counter"): "the clock",
    ("time", "perf_counter_ns"): "the clock",
    ("datetime", "now"): "the clock",
    ("datetime", "utcnow"): "the clock",
    ("datetime", "today"): "the clock",
}

# Where the line that asks is not looked for: there, others ask on behalf of the environment.
_STANDARD = sysconfig.get_paths()["stdlib"]
_LIBRARIES = tuple(f"{Path(str(module.__file__)).parent}/" for module in (np, gymnasium))
_OWN = f"{Path(__file__).parent}/"


def unseeded_calls(play: Callable[[], object]) -> list[str]:
    """Play, and return the places in the environment's code that ask for what no seed decides.

    An unseeded ``np.random.default_rng()``, ``uuid.uuid4()`` and ``secrets`` ask the system for random numbers.
    Not seen is the order of sets of texts, which PYTHONHASHSEED decides and is the same for all of a process.
    """
    found: dict[str, None] = {}

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or not isinstance(function, BuiltinFunctionType):
            return
        owner = getattr(function, "__self__", None)
        module = function.__module__ or getattr(owner, "__module__", "")
        what = _UNSEEDED.get((module, function.__name__))
        place = _place(frame) if what is not None else None
        if place is not None:
            found[f"{what} in {place}"] = None

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        play()
    finally:
        sys.setprofile(before)
    return list(found)


def _place(frame: FrameType | None) -> str | None:
    """Return the line of the user's code from which a function was called, if it was."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_OWN):
            return None
        standard = name.startswith(_STANDARD) and "site-packages" not in name
        if not standard and not name.startswith((*_LIBRARIES, "<frozen")):
            line = linecache.getline(name, frame.f_lineno, frame.f_globals).strip()
            return f"{name.rpartition('/')[2]}:{frame.f_lineno}" + (f" ({line[:80]})" if line else "")
        frame = frame.f_back
    return None


def normalizing_wrapper(env: gymnasium.Env) -> str | None:
    """Return the name of the first of gymnasium's wrappers around an environment that keeps running statistics."""
    level: Any = env
    while isinstance(level, gymnasium.Wrapper):
        if isinstance(level, NormalizeObservation | NormalizeReward):
            return type(level).__name__
        level = level.env
    return None


def wrapper_advice(name: str) -> str:
    """Return what to do instead of a wrapper that normalises by statistics of what it has seen."""
    if "Reward" in name:
        instead = "TransformReward(env, lambda reward: reward / SCALE), with a scale that you choose"
    else:
        instead = "TransformObservation or RescaleObservation, with a mean and a scale that you choose"
    return (
        f"The wrapper {name} returns numbers that depend on all episodes that this copy has seen, so each copy, and "
        "each worker, would give other ones for the same state, and a saved policy would not have them. Leave it out "
        f"and scale by fixed numbers, with gymnasium.wrappers.{instead}"
    )


def nondeterminism(
    env: gymnasium.Env, is_deterministic: Callable[[gymnasium.Env], bool], play: Callable[[], object], remedy: str
) -> str:
    """Return what makes an environment not deterministic, and what to do, as sentences.

    Args:
        env: the environment, with its wrappers.
        is_deterministic: whether one of the environments in it does the same twice.
        play: what was not the same twice.
        remedy: goes on with the advice to draw from np_random.
    """
    normalizing = normalizing_wrapper(env)
    if normalizing is not None:
        return wrapper_advice(normalizing)
    if isinstance(env, gymnasium.Wrapper) and is_deterministic(env.env):
        return (
            f"The wrapper {type(env).__name__} does it: what it wraps is deterministic. It carries something from one "
            "episode into the next, or draws random numbers that no seed reaches: begin anew in its reset()"
        )
    calls = unseeded_calls(play)
    asks = f"It asks for {'; '.join(calls[:3])}. " if calls else ""
    return (
        f"{asks}Call super().reset(seed=seed) first in reset(), draw all random numbers from self.np_random {remedy}; "
        'if that cannot be, say so: metadata = {"nondeterministic": True}'
    )
