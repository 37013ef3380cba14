"""The algorithms: one file each, in its paper's order."""

from ..rl import Algorithm
from .ppo import PPO, PPOConfig

ALGORITHMS: dict[str, type[Algorithm]] = {"ppo": PPO}
"""Algorithm by its name in the command line."""

__all__ = ["ALGORITHMS", "PPO", "PPOConfig"]
