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


class Parts(gymnasium.Env):
    """Observes a Dict of a symbol, a Tuple of a vector and a flag, and a small image; the action that repeats the
    symbol earns 1. Episodes of 6 steps. Actions may be nested, too: then their first part counts."""

    def __init__(self, action_space: spaces.Space | None = None) -> None:
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (9, 8, 1), np.uint8),
                "pair": spaces.Tuple([spaces.Box(-1, 1, (2,), np.float32), spaces.MultiBinary(1)]),
                "symbol": spaces.Discrete(3, start=1),
            }
        )
        self.action_space = action_space or spaces.Discrete(3)

    def _observe(self):
        self._symbol = int(self.np_random.integers(3))
        image = np.full((9, 8, 1), 50 * self._symbol, np.uint8)
        pair = (self.np_random.uniform(-1, 1, 2).astype(np.float32), np.array([self._symbol == 1], np.int8))
        return {"image": image, "pair": pair, "symbol": self._symbol + 1}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._observe(), {}

    def step(self, action):
        while isinstance(action, dict | tuple):
            action = next(iter(action.values())) if isinstance(action, dict) else action[0]
        reward = float(np.ravel(action)[0] == self._symbol)
        self._step += 1
        return self._observe(), reward, False, self._step == 6, {}


class Masked(gymnasium.Env):
    """Allows 2 of 12 actions at a time, of which that with the larger number earns 1; a forbidden one is an error.

    The mask is told in the observation, or in `info`. Episodes of 5 steps: the best return is 5."""

    def __init__(self, *, in_info: bool = False, none_at: int | None = None) -> None:
        self._in_info, self._none_at = in_info, none_at
        self._numbers = spaces.Box(0, 1, (12,), np.float32)
        own = {"numbers": self._numbers, "action_mask": spaces.MultiBinary(12)}
        self.observation_space = self._numbers if in_info else spaces.Dict(own)
        self.action_space = spaces.Discrete(12)

    def _observe(self):
        self._allowed = np.sort(self.np_random.choice(12, 2, replace=False))
        mask = np.zeros(12, np.int8)
        if self._step != self._none_at:
            mask[self._allowed] = 1
        numbers = mask.astype(np.float32)
        info = {"action_mask": mask} if self._in_info else {}
        return (numbers if self._in_info else {"numbers": numbers, "action_mask": mask}), info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._observe()

    def step(self, action):
        if action not in self._allowed:
            raise AssertionError(f"action {action} is forbidden")
        reward = float(action == self._allowed[1])
        self._step += 1
        observation, info = self._observe()
        return observation, reward, self._step == 5, False, info


class Recall(gymnasium.Env):
    """Shows a symbol of 2 at the first step only; at the last of 4 steps the action that repeats it earns 1."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step, self._symbol = 0, int(self.np_random.integers(2))
        return np.array([2 * self._symbol - 1, 0], np.float32), {}

    def step(self, action):
        self._step += 1
        reward = float(action == self._symbol) if self._step == 4 else 0.0
        return np.array([0, self._step == 3], np.float32), reward, self._step == 4, False, {}


class Drawn(gymnasium.Env):
    """Observes random elements of its space for 7 steps; the reward is another one for each action. Where the space is
    a Dict with a mask, some action of each choice is allowed, and to take another one is an error."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def _observe(self):
        self._seed_parts(self.observation_space)
        drawn = self.observation_space.sample()
        if isinstance(drawn, dict) and "action_mask" in drawn:
            self._mask = drawn["action_mask"]
            at = 0
            for n in self._choices():
                self._mask[at + self.np_random.integers(n)] = 1
                at += n
        return drawn

    def _seed_parts(self, space):
        """Seed each leaf of a space: its own `seed`, of a nested one, takes milliseconds."""
        parts = getattr(space, "spaces", None)
        if parts is None:
            space.seed(int(self.np_random.integers(2**31)))
        for part in parts.values() if isinstance(parts, dict) else parts or ():
            self._seed_parts(part)

    def _choices(self):
        space = self.action_space
        return {"Discrete": lambda: [space.n], "MultiDiscrete": lambda: space.nvec}.get(type(space).__name__, list)()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step, self._mask = 0, None
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        if self._mask is not None and not isinstance(self.action_space, spaces.Box | spaces.Dict | spaces.Tuple):
            self._check(action)
        self._step += 1
        numbers = spaces.flatten(self.action_space, action)
        reward = float(np.clip(numbers, -9, 9) @ np.arange(1, len(numbers) + 1))
        return self._observe(), reward, self._step == 7, False, {}

    def _check(self, action):
        if isinstance(self.action_space, spaces.MultiBinary):
            assert (action <= self._mask).all(), (action, self._mask)
            return
        at = 0
        for index, n in zip(np.ravel(action) - self.action_space.start, self._choices(), strict=True):
            assert self._mask[at + index], (action, self._mask)
            at += n
