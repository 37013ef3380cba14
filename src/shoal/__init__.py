"""Reinforcement learning on its own distributed runtime: simulate, train and serve in one program.

    from shoal import PPO, evaluate, serve

What a program needs most, loaded when it is used; the rest is in `shoal.runtime`, `shoal.envs`, `shoal.data`,
`shoal.rl` and `shoal.algorithms`. Importing this package loads nothing of it.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import algorithms, data, envs, rl, runtime
    from .algorithms import (
        A2C,
        ALGORITHMS,
        APPO,
        BC,
        ARS,
        DDPG,
        DQN,
        ES,
        IMPALA,
        CQL,
        GRPO,
        IQL,
        MARWIL,
        PPO,
        QRDQN,
        SAC,
        TD3,
        TD3BC,
        A2CConfig,
        APPOConfig,
        ApeX,
        ApeXConfig,
        BCConfig,
        ARSConfig,
        DDPGConfig,
        DQNConfig,
        ESConfig,
        IMPALAConfig,
        CQLConfig,
        GRPOConfig,
        IQLConfig,
        MARWILConfig,
        PPOConfig,
        QRDQNConfig,
        SACConfig,
        TD3BCConfig,
        TD3Config,
        FITS,
        LightGBM,
        LightGBMConfig,
        Supervised,
        SupervisedConfig,
        XGBoost,
        XGBoostConfig,
    )
    from .envs import SimulatorClient, check, external_env, make, register
    from .rl import (
        Algorithm,
        Callback,
        Policy,
        ProgressDisplay,
        RunFolder,
        TrainingDivergedError,
        evaluate,
        load_policy,
        serve,
    )
    from .runtime import InputError

    __version__: str

_HOME = {
    "A2C": "algorithms",
    "A2CConfig": "algorithms",
    "ALGORITHMS": "algorithms",
    "APPO": "algorithms",
    "APPOConfig": "algorithms",
    "ApeX": "algorithms",
    "ApeXConfig": "algorithms",
    "ARS": "algorithms",
    "ARSConfig": "algorithms",
    "BC": "algorithms",
    "BCConfig": "algorithms",
    "CQL": "algorithms",
    "CQLConfig": "algorithms",
    "DDPG": "algorithms",
    "DDPGConfig": "algorithms",
    "DQN": "algorithms",
    "DQNConfig": "algorithms",
    "ES": "algorithms",
    "ESConfig": "algorithms",
    "IMPALA": "algorithms",
    "IMPALAConfig": "algorithms",
    "GRPO": "algorithms",
    "GRPOConfig": "algorithms",
    "IQL": "algorithms",
    "IQLConfig": "algorithms",
    "MARWIL": "algorithms",
    "MARWILConfig": "algorithms",
    "PPO": "algorithms",
    "PPOConfig": "algorithms",
    "QRDQN": "algorithms",
    "QRDQNConfig": "algorithms",
    "SAC": "algorithms",
    "SACConfig": "algorithms",
    "TD3": "algorithms",
    "TD3BC": "algorithms",
    "TD3BCConfig": "algorithms",
    "TD3Config": "algorithms",
    "FITS": "algorithms",
    "LightGBM": "algorithms",
    "LightGBMConfig": "algorithms",
    "Supervised": "algorithms",
    "SupervisedConfig": "algorithms",
    "XGBoost": "algorithms",
    "XGBoostConfig": "algorithms",
    "SimulatorClient": "envs",
    "check": "envs",
    "external_env": "envs",
    "make": "envs",
    "register": "envs",
    "Algorithm": "rl",
    "Callback": "rl",
    "Policy": "rl",
    "ProgressDisplay": "rl",
    "RunFolder": "rl",
    "TrainingDivergedError": "rl",
    "evaluate": "rl",
    "load_policy": "rl",
    "serve": "rl",
    "InputError": "runtime",
}

__all__ = [
    "A2C",
    "A2CConfig",
    "ALGORITHMS",
    "APPO",
    "APPOConfig",
    "ApeX",
    "ApeXConfig",
    "ARS",
    "ARSConfig",
    "Algorithm",
    "BC",
    "BCConfig",
    "CQL",
    "CQLConfig",
    "Callback",
    "DDPG",
    "DDPGConfig",
    "DQN",
    "DQNConfig",
    "ES",
    "ESConfig",
    "IMPALA",
    "IMPALAConfig",
    "GRPO",
    "IQL",
    "GRPOConfig",
    "IQLConfig",
    "InputError",
    "MARWIL",
    "MARWILConfig",
    "PPO",
    "PPOConfig",
    "Policy",
    "ProgressDisplay",
    "QRDQN",
    "QRDQNConfig",
    "RunFolder",
    "SAC",
    "SACConfig",
    "SimulatorClient",
    "TD3",
    "TD3BC",
    "TD3BCConfig",
    "TD3Config",
    "FITS",
    "LightGBM",
    "LightGBMConfig",
    "Supervised",
    "SupervisedConfig",
    "XGBoost",
    "XGBoostConfig",
    "TrainingDivergedError",
    "__version__",
    "algorithms",
    "check",
    "data",
    "envs",
    "evaluate",
    "external_env",
    "load_policy",
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
