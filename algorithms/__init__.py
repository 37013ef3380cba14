"""The algorithms: one file each, in its paper's order. Each is loaded at its first use."""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from ..rl import tell_algorithms
from ..runtime import lazy_exports

if TYPE_CHECKING:
    from ..rl import Algorithm, TableAlgorithm
    from .a2c import A2C, A2CConfig
    from .apex import ApeX, ApeXConfig
    from .appo import APPO, APPOConfig
    from .ars import ARS, ARSConfig
    from .bc import BC, BCConfig
    from .cql import CQL, CQLConfig
    from .dpo import DPO, DPOConfig
    from .dqn import DQN, DQNConfig
    from .es import ES, ESConfig
    from .grpo import GRPO, GRPOConfig
    from .impala import IMPALA, IMPALAConfig
    from .iql import IQL, IQLConfig
    from .lightgbm import LightGBM, LightGBMConfig
    from .marwil import MARWIL, MARWILConfig
    from .ppo import PPO, PPOConfig
    from .pretrain import Pretrain, PretrainConfig
    from .qrdqn import QRDQN, QRDQNConfig
    from .sac import SAC, SACConfig
    from .sft import SFT, SFTConfig
    from .supervised import Supervised, SupervisedConfig
    from .td3 import DDPG, TD3, DDPGConfig, TD3Config
    from .td3_bc import TD3BC, TD3BCConfig
    from .token_ppo import TokenPPO, TokenPPOConfig
    from .xgboost import XGBoost, XGBoostConfig

Kind = TypeVar("Kind")


class _ByName(Mapping[str, Kind]):
    """Classes of this package by their names in the command line, in this order; each is loaded when it is taken."""

    def __init__(self, classes: Mapping[str, str]) -> None:
        self._classes = classes

    def __getitem__(self, name: str) -> Kind:
        found: Kind = getattr(sys.modules[__name__], self._classes[name])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)


ALGORITHMS: "Mapping[str, type[Algorithm]]" = _ByName(
    {
        "ppo": "PPO",
        "a2c": "A2C",
        "impala": "IMPALA",
        "appo": "APPO",
        "apex": "ApeX",
        "dqn": "DQN",
        "qrdqn": "QRDQN",
        "sac": "SAC",
        "td3": "TD3",
        "ddpg": "DDPG",
        "es": "ES",
        "ars": "ARS",
        "bc": "BC",
        "marwil": "MARWIL",
        "cql": "CQL",
        "iql": "IQL",
        "td3_bc": "TD3BC",
        "pretrain": "Pretrain",
        "sft": "SFT",
        "dpo": "DPO",
        "grpo": "GRPO",
        "token_ppo": "TokenPPO",
    }
)
"""Algorithm by its name in the command line."""

FITS: "Mapping[str, type[TableAlgorithm]]" = _ByName(
    {"xgboost": "XGBoost", "lightgbm": "LightGBM", "supervised": "Supervised"}
)
"""What is fitted to a table, by its name in the command line."""

__all__ = [
    "A2C",
    "ALGORITHMS",
    "APPO",
    "ARS",
    "BC",
    "CQL",
    "DDPG",
    "DPO",
    "DQN",
    "ES",
    "FITS",
    "GRPO",
    "IMPALA",
    "IQL",
    "MARWIL",
    "PPO",
    "QRDQN",
    "SAC",
    "SFT",
    "TD3",
    "TD3BC",
    "A2CConfig",
    "APPOConfig",
    "ARSConfig",
    "ApeX",
    "ApeXConfig",
    "BCConfig",
    "CQLConfig",
    "DDPGConfig",
    "DPOConfig",
    "DQNConfig",
    "ESConfig",
    "GRPOConfig",
    "IMPALAConfig",
    "IQLConfig",
    "LightGBM",
    "LightGBMConfig",
    "MARWILConfig",
    "PPOConfig",
    "Pretrain",
    "PretrainConfig",
    "QRDQNConfig",
    "SACConfig",
    "SFTConfig",
    "Supervised",
    "SupervisedConfig",
    "TD3BCConfig",
    "TD3Config",
    "TokenPPO",
    "TokenPPOConfig",
    "XGBoost",
    "XGBoostConfig",
]

__getattr__, __dir__ = lazy_exports(__name__)

tell_algorithms(ALGORITHMS.values)
