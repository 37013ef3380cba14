"""The algorithms: one file each, in its paper's order."""

from ..rl import Algorithm
from .a2c import A2C, A2CConfig
from .dqn import DQN, DQNConfig
from .ppo import PPO, PPOConfig
from .sac import SAC, SACConfig
from .td3 import DDPG, TD3, DDPGConfig, TD3Config

ALGORITHMS: dict[str, type[Algorithm]] = {algorithm.name: algorithm for algorithm in (PPO, A2C, DQN, SAC, TD3, DDPG)}
"""Algorithm by its name in the command line."""

__all__ = [
    "A2C",
    "ALGORITHMS",
    "DDPG",
    "DQN",
    "PPO",
    "SAC",
    "TD3",
    "A2CConfig",
    "DDPGConfig",
    "DQNConfig",
    "PPOConfig",
    "SACConfig",
    "TD3Config",
]
