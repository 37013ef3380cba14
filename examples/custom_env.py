"""Train on an environment of your own: write a gymnasium class, register it, train.

Run it with:
    python examples/custom_env.py
"""

import argparse

import gymnasium
import numpy as np

from shoal import envs
from shoal.algorithms import PPO


class Corridor(gymnasium.Env):
    """Walk from the left end of a corridor to the right one: +1 at the end, -0.05 for every step."""

    def __init__(self, length: int = 8) -> None:
        self.length = length
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)  # 0: left, 1: right
        self.position = 0

    def _observe(self) -> np.ndarray:
        return np.array([self.position / self.length], np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin at the left end."""
        super().reset(seed=seed)
        self.position = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Take one step to the left or the right."""
        self.position = max(0, self.position + (1 if action == 1 else -1))
        arrived = self.position == self.length
        return self._observe(), 1.0 if arrived else -0.05, arrived, False, {}


def main() -> None:
    """Check, register and train; the workers get the class from here."""
    parser = argparse.ArgumentParser(description="Train PPO on an environment of your own.")
    parser.add_argument("--total-timesteps", type=int, default=20_000, help="environment steps to train for")
    flags = parser.parse_args()

    envs.register("Corridor-v0", Corridor, max_episode_steps=100)
    envs.check("Corridor-v0")  # names what an environment does wrong, before a training suffers from it
    with PPO("Corridor-v0", workers=2, n_envs=8, n_steps=128, seed=0) as ppo:
        result = ppo.train(total_timesteps=flags.total_timesteps)
        action = ppo.policy.act(np.array([0.5], np.float32), deterministic=True)
    print(f"mean return {result.episode_return_mean:.2f} (the best possible is 0.65), action in the middle: {action}")


if __name__ == "__main__":
    main()
