"""Reinforcement learning on its own distributed runtime: simulate, train and serve in one program.

    from shoal import PPO, evaluate, serve

What a program needs most, loaded when it is used; the rest is in `shoal.runtime`, `shoal.envs`, `shoal.rl` and
`shoal.algorithms`. Importing this package loads nothing of it.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import algorithms, envs, rl, runtime
    from .algorithms import (
        A2C,
        ALGORITHMS,
        DDPG,
        DQN,
        PPO,
        SAC,
        TD3,
        A2CConfig,
        DDPGConfig,
        DQNConfig,
        PPOConfig,
        SACConfig,
        TD3Config,
    )
    from .envs import check, make, register
    from .rl import Algorithm, Callback, Policy, ProgressDisplay, RunFolder, TrainingDivergedError, evaluate, serve
    from .runtime import InputError

    __version__: str

_HOME = {
    "A2C": "algorithms",
    "A2CConfig": "algorithms",
    "ALGORITHMS": "algorithms",
    "DDPG": "algorithms",
    "DDPGConfig": "algorithms",
    "DQN": "algorithms",
    "DQNConfig": "algorithms",
    "PPO": "algorithms",
    "PPOConfig": "algorithms",
    "SAC": "algorithms",
    "SACConfig": "algorithms",
    "TD3": "algorithms",
    "TD3Config": "algorithms",
    "check": "envs",
    "make": "envs",
    "register": "envs",
    "Algorithm": "rl",
    "Callback": "rl",
    "Policy": "rl",
    "ProgressDisplay": "rl",
    "RunFolder": "rl",
    "TrainingDivergedError": "rl",
    "evaluate": "rl",
    "serve": "rl",
    "InputError": "runtime",
}

__all__ = [
    "A2C",
    "A2CConfig",
    "ALGORITHMS",
    "Algorithm",
    "Callback",
    "DDPG",
    "DDPGConfig",
    "DQN",
    "DQNConfig",
    "InputError",
    "PPO",
    "PPOConfig",
    "Policy",
    "ProgressDisplay",
    "RunFolder",
    "SAC",
    "SACConfig",
    "TD3",
    "TD3Config",
    "TrainingDivergedError",
    "__version__",
    "algorithms",
    "check",
    "envs",
    "evaluate",
    "make",
    "register",
    "rl",
    "runtime",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata  # takes as long to import as all of the runtime

        return metadata.version(__name__)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    # With the module, Python adds the nearest name to the message.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
