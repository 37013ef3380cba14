"""From the start of a process to a built PPO on CartPole: imports included, nothing trained.

python benchmarks/rl/start.py shoal|sb3
"""

import json
import sys

from measure import pss_megabytes, tree


def shoal():
    """Build Shoal's; return what it keeps."""
    from shoal import PPO

    return PPO("CartPole-v1")


def sb3():
    """Build Stable-Baselines3's; return what it keeps."""
    from stable_baselines3 import PPO

    return PPO("MlpPolicy", "CartPole-v1", device="cpu")


if __name__ == "__main__":
    kept = {"shoal": shoal, "sb3": sb3}[sys.argv[1]]()
    print(json.dumps({"pss_megabytes": pss_megabytes(tree())}), flush=True)
