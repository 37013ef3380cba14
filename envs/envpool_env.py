"""An environment that EnvPool has (Weng et al., 2022, arXiv 2206.10558) by itself, under "EnvPool/" and its id there.

With `--vectorization envpool` a group is one pool of it; this copy is what is checked and evaluated, and what trains
where EnvPool's observations have parts, which its groups do not take.
"""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from ..runtime import InputError, nearest
from .packages import is_installed
from .spaces import codec

PREFIX = "EnvPool/"


def find_task(task: str) -> Any:
    """Return the module envpool, which has a task of that id; InputError with the nearest ids if it has none.

    Raises ImportError if it is not installed."""
    module = importlib.import_module("envpool")
    known = module.list_all_envs()
    if task not in known:
        close = nearest(task, known)
        hint = f" {close}" if close.startswith("Did") else ""  # it knows 1,650
        raise InputError(f"EnvPool has no environment {task!r}.{hint}")
    return module


def has_task(task: str) -> bool:
    """Whether EnvPool is installed, and has a task of that id. Imports it, which takes a second."""
    if not is_installed("envpool"):
        return False
    return task in importlib.import_module("envpool").list_all_envs()


@contextmanager
def its_own_spaces() -> Iterator[None]:
    """Nobody can change what gymnasium finds about spaces that a library declares: bounds are float64 for float32."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*precision lowered")
        yield


class EnvPoolEnv(gymnasium.Env):
    """A pool of one.

    A pool takes a seed only when it is made, so `reset` with one makes a new pool: 1 ms, of dm_control's tasks 120 ms,
    of an Atari game 250 ms.

    Args:
        task: EnvPool's id, such as "HumanoidRun-v1".
        settings: as of `envpool.make`.

    Raises:
        ImportError: EnvPool is not installed.
        InputError: it has no such task, or does not take the settings.
    """

    def __init__(self, task: str, **settings: Any) -> None:
        self._module, self._task, self._settings = find_task(task), task, settings
        self._pool = self._make(0)
        with its_own_spaces():
            self.observation_space = _unbounded(self._pool.observation_space)
            self.action_space = _unbounded(self._pool.action_space)

    def _make(self, seed: int) -> Any:
        try:
            with its_own_spaces():
                return self._module.make(
                    self._task, env_type="gymnasium", num_envs=1, num_threads=1, seed=seed % 2**31, **self._settings
                )
        except (TypeError, ValueError, AssertionError) as error:
            raise InputError(f"EnvPool cannot make {self._task!r}: {error}") from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As of gymnasium.Env."""
        super().reset(seed=seed)
        if seed is not None:
            self._pool.close()
            self._pool = self._make(seed)
        observations, info = self._pool.reset()
        return _first(observations), _told(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As of gymnasium.Env."""
        observations, rewards, terminations, truncations, info = self._pool.step(np.asarray(action)[None])
        return _first(observations), float(rewards[0]), bool(terminations[0]), bool(truncations[0]), _told(info)

    def close(self) -> None:
        """As of gymnasium.Env."""
        self._pool.close()


def _first(values: Any) -> Any:
    """The first row of arrays, or of those in dicts, of numbers as numpy has them."""
    if isinstance(values, dict):
        return {name: _first(value) for name, value in values.items()}
    return np.array(values[0])[()]


def _told(info: dict[str, Any]) -> dict[str, Any]:
    return {name: _first(value) for name, value in info.items() if isinstance(value, np.ndarray)}


def _unbounded(space: Any) -> Any:
    """A space without the bounds that EnvPool declares of dm_control's numbers: the least positive float and the
    largest, where it means that there are none."""
    kind = codec(space).kind
    if kind == "Dict":
        return Dict([(name, _unbounded(part)) for name, part in space.spaces.items()])
    if kind == "Box" and space.dtype == np.float64:
        limits = np.finfo(np.float64)
        if (space.low == limits.tiny).all() and (space.high == limits.max).all():
            return Box(-np.inf, np.inf, space.shape, np.float64)
    return space
