"""The algorithms: one file each, in its paper's order."""

from ..rl import Algorithm
from .a2c import A2C, A2CConfig
from .dqn import DQN, DQNConfig
from .ppo import PPO, PPOConfig

ALGORITHMS: dict[str, type[Algorithm]] = {algorithm.name: algorithm for algorithm in (PPO, A2C, DQN)}
"""Algorithm by its name in the command line."""

__all__ = ["A2C", "ALGORITHMS", "DQN", "PPO", "A2CConfig", "DQNConfig", "PPOConfig"]
