"""Environments: registration, simulation groups, the contract check.

Environments are gymnasium's; there is no environment interface of Shoal's own. An environment is named by an `EnvSpec`,
stepped in an `EnvGroup`, and every random number it sees comes from `seeding`.
"""

from .check import check, inspect_environment
from .closing import close_all, closing
from .errors import (
    EnvContractError,
    EnvContractWarning,
    EnvTimeoutError,
    RecoveryWarning,
    ReplayMismatchError,
    SpaceMismatchError,
)
from .generators import PrivateGenerators, own_generators
from .group import EnvGroup
from .group_state import GroupState
from .group_step import Episode, GroupStep
from .observations import as_batch
from .packages import missing_packages_named
from .recovery import RecoveryChoice, choose_recovery
from .registration import make, register, registered, resolve
from .saved_spec import spec_from_json, spec_to_json
from .seeding import derive_seed, episode_seed, stream
from .space_match import check_same_spaces
from .spaces import check_supported, describe, space_from_json, space_to_json, to_env_actions
from .spec import EnvSpec
from .trees import tree_from_arrays, tree_to_arrays

__all__ = [
    "EnvContractError",
    "EnvContractWarning",
    "EnvGroup",
    "EnvSpec",
    "EnvTimeoutError",
    "Episode",
    "GroupState",
    "GroupStep",
    "PrivateGenerators",
    "RecoveryChoice",
    "RecoveryWarning",
    "ReplayMismatchError",
    "SpaceMismatchError",
    "as_batch",
    "check",
    "check_same_spaces",
    "check_supported",
    "choose_recovery",
    "close_all",
    "closing",
    "derive_seed",
    "describe",
    "episode_seed",
    "inspect_environment",
    "make",
    "missing_packages_named",
    "own_generators",
    "register",
    "registered",
    "resolve",
    "space_from_json",
    "space_to_json",
    "spec_from_json",
    "spec_to_json",
    "stream",
    "to_env_actions",
    "tree_from_arrays",
    "tree_to_arrays",
]
