"""Environments of the table whose best return is known."""

import gymnasium
import numpy as np
from gymnasium import spaces


class NoVelocities(gymnasium.ObservationWrapper):
    """CartPole-v1 that shows position and angle only: how fast they change has to be remembered. At best 500."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        low, high = self.env.observation_space.low[[0, 2]], self.env.observation_space.high[[0, 2]]
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation):
        return observation[[0, 2]]


class FewAllowed(gymnasium.Env):
    """60 actions, of which 3 are allowed in each of 20 steps; that whose number in the observation is largest earns 1.

    A forbidden action is an error. At best 20; among those allowed by chance 6.7.
    """

    ACTIONS, ALLOWED, STEPS = 60, 3, 20

    def __init__(self) -> None:
        numbers = spaces.Box(0, 1, (self.ACTIONS,), np.float32)
        self.observation_space = spaces.Dict({"numbers": numbers, "action_mask": spaces.MultiBinary(self.ACTIONS)})
        self.action_space = spaces.Discrete(self.ACTIONS)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._observe(), {}

    def step(self, action):
        if not self._mask[action]:
            raise ValueError(f"action {action} is forbidden")
        self._step += 1
        reward = float(action == self._best)
        return self._observe(), reward, self._step == self.STEPS, False, {}

    def _observe(self):
        allowed = self.np_random.choice(self.ACTIONS, self.ALLOWED, replace=False)
        self._mask = np.zeros(self.ACTIONS, np.int8)
        self._mask[allowed] = 1
        numbers = np.zeros(self.ACTIONS, np.float32)
        numbers[allowed] = self.np_random.permutation([0.2, 0.5, 1.0])
        self._best = int(numbers.argmax())
        return {"numbers": numbers, "action_mask": self._mask.copy()}


class Catch(gymnasium.Env):
    """A ball falls over 64 × 64 pixels; the paddle below moves left, right or not, by one of 8 columns. Catching it
    earns 1, missing it −1. 10 balls: at best 10."""

    CELL, COLUMNS, BALLS = 8, 8, 10

    def __init__(self) -> None:
        side = self.CELL * self.COLUMNS
        self.observation_space = spaces.Box(0, 255, (side, side, 1), np.uint8)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._balls, self._paddle = 0, self.COLUMNS // 2
        self._drop()
        return self._image(), {}

    def step(self, action):
        self._paddle = int(np.clip(self._paddle + int(action) - 1, 0, self.COLUMNS - 1))
        self._row += 1
        reward = 0.0
        if self._row == self.COLUMNS - 1:
            reward = 1.0 if self._column == self._paddle else -1.0
            self._balls += 1
            self._drop()
        return self._image(), reward, self._balls == self.BALLS, False, {}

    def _drop(self):
        self._row, self._column = 0, int(self.np_random.integers(self.COLUMNS))

    def _image(self):
        image = np.zeros((self.COLUMNS, self.COLUMNS), np.uint8)
        image[self._row, self._column] = 255
        image[-1, self._paddle] = 128
        return np.kron(image, np.ones((self.CELL, self.CELL), np.uint8))[..., np.newaxis]
