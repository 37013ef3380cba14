"""Which model an algorithm uses between two spaces, or why none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium import Space
from gymnasium.spaces import Box

from ..envs import check_mask, codec, describe
from ..runtime import InputError
from .data.moments import normalized_leaves
from .declaration import Declaration
from .known_algorithms import load_algorithms
from .models.architecture import ARCHITECTURES, MemoryChoice
from .models.spec import ModelSpec, takes


def choose_model(
    algorithm: type[Declaration],
    env_id: str,
    observation_space: Space,
    action_space: Space,
    policy_kwargs: Mapping[str, Any],
    *,
    normalized: bool = False,
) -> ModelSpec:
    """The first of the algorithm's kinds of model that takes the action space.

    Raises InputError if there is none, naming the algorithms that take it; or for spaces and `policy_kwargs` that are
    not supported.
    """
    try:
        check_mask(observation_space, action_space)
    except InputError as error:
        raise InputError(f"environment {env_id!r}: {error}") from None
    kind = next((kind for kind in algorithm.models if takes(kind, action_space)), None)
    if kind is None:
        others = [other for other in algorithms() if any(takes(kind, action_space) for kind in other.models)]
        raise InputError(
            f"{algorithm.name} does not work with action space {describe(action_space)} of environment {env_id!r}; "
            f"{_with_bounds(algorithm, action_space)}with it work: {_nearest(algorithm, others)}"
        )
    if normalized and not normalized_leaves(observation_space):
        raise InputError(
            f"normalize holds obs, but observation space {describe(observation_space)} of environment {env_id!r} has "
            "no vector of numbers: leave it out"
        )
    spec = ModelSpec(kind, observation_space, action_space, policy_kwargs, normalized)
    spec.check_own_modules()
    return spec


def _with_bounds(algorithm: type[Declaration], action_space: Space) -> str:
    """What would make an unbounded action space one that the algorithm takes."""
    found = codec(action_space)
    if found.kind != "Box" or not any(takes(kind, Box(-1, 1, found.shape)) for kind in algorithm.models):
        return ""
    return "it fills the space between finite bounds: declare them, and scale inside the environment; "


def choose_memory(algorithm: type[Declaration], policy_kwargs: Mapping[str, Any]) -> None:
    """Refuse a memory that the algorithm cannot learn with; InputError names those that can."""
    if "memory" in policy_kwargs and not remembers(algorithm):
        others = _nearest(algorithm, [other for other in algorithms() if remembers(other)])
        raise InputError(
            f"{algorithm.name} does not work with a memory (memory={policy_kwargs['memory']!r}): it does not learn "
            f"from sequences. Leave it out (memory='none'), or choose what does: {others}"
        )


def _nearest(algorithm: type[Declaration], others: list[type[Declaration]]) -> str:
    """The names of those of `others` that learn from the same, an environment or a dataset; of all, if none does."""
    alike = [other for other in others if other.needs_environment == algorithm.needs_environment]
    names = ", ".join(sorted({other.name for other in alike or others}))
    return names if alike or algorithm.needs_environment else f"{names}, which learn in an environment"


def remembers(algorithm: type[Declaration]) -> bool:
    """Whether an algorithm can learn with a memory."""
    return algorithm.takes_memory and any(issubclass(ARCHITECTURES[kind], MemoryChoice) for kind in algorithm.models)


def algorithms() -> list[type[Declaration]]:
    """All that are told of, and others whose modules are imported."""
    load_algorithms()
    found: dict[type[Declaration], None] = {}  # a set that keeps its order: a kind may have several bases
    waiting = Declaration.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if hasattr(kind, "name"):
            found[kind] = None
    return list(found)
