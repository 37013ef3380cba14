"""The algorithms: one file each, in its paper's order."""

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

ALGORITHMS: dict[str, type[Algorithm]] = {
    algorithm.name: algorithm
    for algorithm in (
        PPO,
        A2C,
        IMPALA,
        APPO,
        ApeX,
        DQN,
        QRDQN,
        SAC,
        TD3,
        DDPG,
        ES,
        ARS,
        BC,
        MARWIL,
        CQL,
        IQL,
        TD3BC,
        Pretrain,
        SFT,
        DPO,
        GRPO,
        TokenPPO,
    )
}
"""Algorithm by its name in the command line."""

FITS: dict[str, type[TableAlgorithm]] = {fit.name: fit for fit in (XGBoost, LightGBM, Supervised)}
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
