"""Tiny environments for tests of learning: quick, seeded, with known answers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Echo(gymnasium.Env):
    """Shows a symbol of 4; the action that repeats it earns 1. Episodes of 8 steps, truncated: the best return is 8."""

    def __init__(self, action_space: spaces.Space | None = None) -> None:
        self.observation_space = spaces.Discrete(4)
        self.action_space = action_space or spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        self._symbol = int(self.np_random.integers(4))
        return self._symbol, {}

    def step(self, action):
        reward = float(np.ravel(action)[0] == self._symbol)
        self._step += 1
        self._symbol = int(self.np_random.integers(4))
        return self._symbol, reward, False, self._step == 8, {}


class TwoArms(gymnasium.Env):
    """One of two arms earns 1, the other nothing; episodes of 10 pulls, nothing to see: the best return is 10."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._pulls = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._pulls += 1
        return np.zeros(1, np.float32), float(action == 1), self._pulls == 10, False, {}


class Walk(gymnasium.Env):
    """Observes its position; ends when |position| > 3, truncates after `limit` steps; any action space, reward 1 a
    step."""

    def __init__(self, action_space: spaces.Space | None = None, limit: int = 11, noise: float = 1.0) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = action_space or spaces.Discrete(2)
        self._limit, self._noise = limit, noise

    def _observe(self):
        return np.array([self._position, self._step / self._limit], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._position, self._step = 0.0, 0
        return self._observe(), {}

    def step(self, action):
        self._step += 1
        self._position += (
            float(np.mean(np.asarray(action, dtype=float))) - 0.5 + self._noise * float(self.np_random.normal())
        )
        return self._observe(), 1.0, abs(self._position) > 3, self._step >= self._limit, {}


class Countdown(gymnasium.Env):
    """Episode k of a copy lasts 1 + (seed % 5) steps and earns 1 a step: short and long episodes side by side."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 10, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = 1 + int(self.np_random.integers(5))
        return np.array([self._left], dtype=np.float32), {}

    def step(self, action):
        self._left -= 1
        return np.array([self._left], dtype=np.float32), 1.0, self._left == 0, False, {}


class BrokenError(Exception):
    """What `Breaks` raises."""


class Breaks(Walk):
    """Raises `BrokenError` in its 200th step."""

    def __init__(self) -> None:
        super().__init__(limit=200, noise=0.0)
        self._total = 0

    def step(self, action):
        self._total += 1
        if self._total == 200:
            raise BrokenError("the simulator is broken")
        return super().step(action)


class DiesOnce(Walk):
    """Kills the process that it runs in at its 150th step, unless the file `marker` exists, which it makes just before.

    (The contract check in the driver takes 128 steps.)
    """

    def __init__(self, marker: str) -> None:
        super().__init__()
        self._marker, self._total = Path(marker), 0

    def step(self, action):
        self._total += 1
        if self._total == 150 and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Crashes(Walk):
    """Ends the process that it runs in, at its 150th step (the contract check in the driver takes 128)."""

    def __init__(self) -> None:
        super().__init__()
        self._total = 0

    def step(self, action):
        self._total += 1
        if self._total == 150:
            os._exit(7)
        return super().step(action)
