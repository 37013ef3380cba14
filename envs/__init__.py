"""Environments: registration, simulation groups, the contract check.

Environments are gymnasium's; there is no environment interface of Shoal's own. An environment is named by an `EnvSpec`,
stepped in an `EnvGroup`, and every random number it sees comes from `seeding`.
"""

from .action_mask import MaskGuard, allowed_action, check_mask, mask_of
from .addresses import bind, check_token, is_loopback, parse_address, shown_address
from .agents import (
    CRITIC,
    OWN,
    JointSpace,
    PettingZoo,
    Seats,
    agents_of_episodes,
    central_space,
    is_central,
    own_space,
    put_own,
)
from .atari import Atari
from .catalog import catalog
from .check import Inspection, check, inspect_environment
from .closing import close_all, closing
from .copies import make_copy
from .errors import (
    EnvContractError,
    EnvContractWarning,
    EnvTimeoutError,
    RecoveryWarning,
    ReplayMismatchError,
    SpaceMismatchError,
)
from .external import (
    Endpoint,
    EpisodeLostError,
    External,
    Refusal,
    ServerGoneError,
    SimulatorAnswer,
    SimulatorClient,
    SimulatorEpisode,
    SimulatorError,
    SimulatorHub,
    SimulatorServer,
    SimulatorTransition,
    SimulatorTurn,
    external_env,
    to_row,
)
from .generators import PrivateGenerators, begin_generators, own_generators
from .group import EnvGroup
from .group_state import GroupState
from .group_step import Episode, GroupStep
from .language import Prompts, RewardActor, RewardError, TextEnvironments, TextTask
from .named_modules import find_named, import_named
from .packages import install_line, is_installed, missing_packages_named
from .recovery import RecoveryChoice, choose_recovery
from .registration import make, register, registered, resolve
from .reproducer import script_in
from .saved_spec import spec_from_json, spec_to_json
from .seeding import derive_seed, episode_seed, stream
from .space_match import check_same_spaces
from .spaces import (
    MASK,
    LeafCodec,
    Role,
    SpaceCodec,
    TextCodec,
    are_texts,
    as_batch,
    check_supported,
    codec,
    describe,
    part_of,
    space_from_json,
    space_to_json,
    to_env_actions,
)
from .spec import EnvSpec
from .trees import tree_from_arrays, tree_to_arrays
from .vectorization import Group, check_vectorization, choose_group_recovery, has_vector_version, make_group

__all__ = [
    "CRITIC",
    "MASK",
    "OWN",
    "Atari",
    "Endpoint",
    "EnvContractError",
    "EnvContractWarning",
    "EnvGroup",
    "EnvSpec",
    "EnvTimeoutError",
    "Episode",
    "EpisodeLostError",
    "External",
    "Group",
    "GroupState",
    "GroupStep",
    "Inspection",
    "JointSpace",
    "LeafCodec",
    "MaskGuard",
    "PettingZoo",
    "PrivateGenerators",
    "Prompts",
    "RecoveryChoice",
    "RecoveryWarning",
    "Refusal",
    "ReplayMismatchError",
    "RewardActor",
    "RewardError",
    "Role",
    "Seats",
    "ServerGoneError",
    "SimulatorAnswer",
    "SimulatorClient",
    "SimulatorEpisode",
    "SimulatorError",
    "SimulatorHub",
    "SimulatorServer",
    "SimulatorTransition",
    "SimulatorTurn",
    "SpaceCodec",
    "SpaceMismatchError",
    "TextCodec",
    "TextEnvironments",
    "TextTask",
    "agents_of_episodes",
    "allowed_action",
    "are_texts",
    "as_batch",
    "begin_generators",
    "bind",
    "catalog",
    "central_space",
    "check",
    "check_mask",
    "check_same_spaces",
    "check_supported",
    "check_token",
    "check_vectorization",
    "choose_group_recovery",
    "choose_recovery",
    "close_all",
    "closing",
    "codec",
    "derive_seed",
    "describe",
    "episode_seed",
    "external_env",
    "find_named",
    "has_vector_version",
    "import_named",
    "inspect_environment",
    "install_line",
    "is_central",
    "is_installed",
    "is_loopback",
    "make",
    "make_copy",
    "make_group",
    "mask_of",
    "missing_packages_named",
    "own_generators",
    "own_space",
    "parse_address",
    "part_of",
    "put_own",
    "register",
    "registered",
    "resolve",
    "script_in",
    "shown_address",
    "space_from_json",
    "space_to_json",
    "spec_from_json",
    "spec_to_json",
    "stream",
    "to_env_actions",
    "to_row",
    "tree_from_arrays",
    "tree_to_arrays",
]
