"""Environments of several agents: PettingZoo's, each as one gymnasium environment whose elements hold all agents'.

    ParallelEnv ──JointEnv──▶ gymnasium.Env of joint spaces ──EnvGroup──▶ records ──Seats──▶ rows (environment, agent)

So the check, recovery, seeding, time limits and reports are those of all environments; only who sits where is new.
"""

from .central import CRITIC, OWN, central_space, is_central, own_space, put_own
from .joint import JointEnv, has_agents, is_joint, joint_env, tell_state
from .joint_spaces import JointSpace
from .pettingzoo_ids import PettingZoo, installed_games, pettingzoo_id
from .seats import Seats, agents_of_episodes
from .turns import Turns

__all__ = [
    "CRITIC",
    "OWN",
    "JointEnv",
    "JointSpace",
    "PettingZoo",
    "Seats",
    "Turns",
    "agents_of_episodes",
    "central_space",
    "has_agents",
    "installed_games",
    "is_central",
    "is_joint",
    "joint_env",
    "own_space",
    "pettingzoo_id",
    "put_own",
    "tell_state",
]
