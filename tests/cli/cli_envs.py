"""Environments that the command line's tests name as `cli_envs:Name`."""

import threading
from typing import ClassVar

import gymnasium
import numpy as np


class Tiny(gymnasium.Env):
    """Four steps long; the action is the reward."""

    observation_space = gymnasium.spaces.Box(0.0, 4.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=4):
        self.length = length
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), float(action), self.steps == self.length, False, {}


class Endless(Tiny):
    """It has no end within a short training."""

    observation_space = gymnasium.spaces.Box(0.0, np.inf, (1,), np.float32)


class Lavish(Tiny):
    """Its rewards grow beyond all measure in its 100th step."""

    metadata: ClassVar = {"nondeterministic": True}

    def __init__(self):
        super().__init__()
        self.total = 0

    def step(self, action):
        self.total += 1
        observation, reward, *rest = super().step(action)
        return observation, reward if self.total < 100 else 1e20, *rest


class Talking(Tiny):
    """It prints."""

    def step(self, action):
        print("hello from the environment")
        return super().step(action)


class Lying(Tiny):
    """Its observations leave their space."""

    def step(self, action):
        observation, *rest = super().step(action)
        return observation + 100, *rest


class Lacking(Tiny):
    """It needs a package that nobody has."""

    def __init__(self):
        import nobody_has_this

        super().__init__(nobody_has_this.length)


class OutOfFuelError(Exception):
    """An exception of the user's own."""


class Failing(Tiny):
    """It fails in its 300th step."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def step(self, action):
        self.total += 1
        if self.total == 300:
            raise OutOfFuelError("the tank is empty")
        return super().step(action)


class _Locked(Tiny):
    lock = None


def make_locked():
    """A factory that holds what no process can be sent."""
    return _Locked()


make_locked.lock = threading.Lock()
not_callable = 3
