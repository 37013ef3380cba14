"""Reinforcement learning on its own distributed runtime: simulate, train and serve in one program.

    from shoal import PPO, evaluate, serve

What a program needs most, loaded when it is used; the rest is in `shoal.runtime`, `shoal.envs`, `shoal.data`,
`shoal.rl` and `shoal.algorithms`. Importing this package loads nothing of it.
"""

import sys
from importlib import import_module
from types import ModuleType
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
        DPO,
        DPOConfig,
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
        Pretrain,
        PretrainConfig,
        QRDQNConfig,
        SACConfig,
        SFT,
        SFTConfig,
        TD3BCConfig,
        TD3Config,
        TokenPPO,
        TokenPPOConfig,
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
    "DPO": "algorithms",
    "DPOConfig": "algorithms",
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
    "Pretrain": "algorithms",
    "PretrainConfig": "algorithms",
    "QRDQN": "algorithms",
    "QRDQNConfig": "algorithms",
    "SAC": "algorithms",
    "SACConfig": "algorithms",
    "SFT": "algorithms",
    "SFTConfig": "algorithms",
    "TD3": "algorithms",
    "TD3BC": "algorithms",
    "TD3BCConfig": "algorithms",
    "TD3Config": "algorithms",
    "TokenPPO": "algorithms",
    "TokenPPOConfig": "algorithms",
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
    "DPO",
    "DPOConfig",
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
    "Pretrain",
    "PretrainConfig",
    "Policy",
    "ProgressDisplay",
    "QRDQN",
    "QRDQNConfig",
    "RunFolder",
    "SAC",
    "SACConfig",
    "SFT",
    "SFTConfig",
    "SimulatorClient",
    "TD3",
    "TD3BC",
    "TD3BCConfig",
    "TD3Config",
    "TokenPPO",
    "TokenPPOConfig",
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
        return getattr(_package(_HOME[name]), name)
    if name in __all__:
        return _package(name)
    if not name.startswith("_"):
        answer = import_module(".rl.elsewhere", __name__).package_instead(name)
        if answer is not None:  # of an AttributeError `from shoal import` would tell the name alone
            raise ImportError(f"cannot import name {name!r} from {__name__!r}. {answer}", name=__name__)
    # With the module, Python adds the nearest name to the message.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def _package(name: str) -> ModuleType:
    """Import one of our packages; a Ctrl-C waits for that, since numpy cannot be imported a second time."""
    found: ModuleType = import_module(".runtime", __name__).import_whole(f".{name}", __name__)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
