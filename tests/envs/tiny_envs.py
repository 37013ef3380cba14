"""Hand-made environments whose every value is known."""

import threading

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Counter(gymnasium.Env):
    """Observation [steps so far, sum of actions so far + a number drawn at reset]; ends by itself after `length` steps.

    Reward of step t (from 1) is t + action / 2. With `truncate_at` it is cut off there, with both flags set if that is
    also the end.
    """

    def __init__(self, length: int = 3, truncate_at: int | None = None, noisy: bool = False) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Discrete(3)
        self.length, self.truncate_at, self.noisy = length, truncate_at, noisy
        self.steps, self.total = 0, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.total = 0, float(self.np_random.integers(1000)) if self.noisy else 0.0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        self.total += float(action) + (float(self.np_random.normal()) if self.noisy else 0.0)
        reward = self.steps + float(action) / 2
        return self._observe(), reward, self.steps == self.length, self.steps == self.truncate_at, {}

    def _observe(self):
        return np.array([self.steps, self.total], np.float32)


class Locked(Counter):
    """Cannot be pickled, so that it has to be replayed."""

    def __init__(self, length: int = 40, noisy: bool = True) -> None:
        super().__init__(length, noisy=noisy)
        self.lock = threading.Lock()


class OwnState(Locked):
    """Cannot be pickled and forgets across episodes how often it was reset, but knows how to put itself back."""

    resets = 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        _, info = super().reset(seed=seed, options=options)
        self.total += 1000 * self.resets
        return self._observe(), info

    def get_state(self):
        return {"steps": self.steps, "total": self.total, "resets": self.resets, "trail": np.arange(self.steps)}

    def set_state(self, state):
        state["trail"] += 1  # it may write to what it is given
        self.steps, self.total, self.resets = state["steps"], state["total"], state["resets"]


class Chaotic(Counter):
    """Draws from a generator that no seed reaches, and cannot be pickled."""

    def __init__(self, length: int = 40) -> None:
        super().__init__(length)
        self.lock = threading.Lock()
        self.generator = np.random.default_rng()

    def _observe(self):
        return np.array([self.steps, self.generator.normal()], np.float32)


class Continuous(gymnasium.Env):
    """Observation: sum of the actions so far. It changes the action that it is given."""

    def __init__(self) -> None:
        self.observation_space = Box(-100, 100, (2,), np.float64)
        self.action_space = Box(-1, 1, (2,), np.float32)
        self.position = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2)
        return self.position.copy(), {}

    def step(self, action):
        self.position = self.position + action
        action *= 0
        return self.position.copy(), float(self.position.sum()), bool(abs(self.position).max() > 5), False, {}


class Explosive(Counter):
    """Raises an error of its own in the step, reset or construction that it is told."""

    def __init__(self, where: str = "step", at: int = 2) -> None:
        super().__init__(length=10, noisy=True)
        self.where, self.at = where, at
        if where == "__init__":
            raise BoomError("no fuel")

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        if self.where == "reset":
            raise BoomError("stuck")
        return result

    def step(self, action):
        result = super().step(action)
        if self.where == "step" and self.steps == self.at:
            raise BoomError(f"bang with {self.total!r}")
        return result


class BoomError(Exception):
    """A user's own exception."""
