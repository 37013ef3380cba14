"""Which model an algorithm uses between two spaces, or why none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space

from ..envs import describe
from ..runtime import InputError
from .declaration import Declaration
from .models.spec import ModelSpec, takes

logger = logging.getLogger("shoal")


def choose_model(
    algorithm: type[Declaration],
    env_id: str,
    observation_space: Space,
    action_space: Space,
    policy_kwargs: Mapping[str, Any],
) -> ModelSpec:
    """The first of the algorithm's kinds of model that takes the action space.

    Raises InputError if there is none, naming the algorithms that take it; or for spaces and `policy_kwargs` that are
    not supported.
    """
    if observation_space.dtype == np.uint8 and len(observation_space.shape or ()) == 3:
        logger.warning(
            "environment %r: its images, %s, are flattened into a plain network, which sees no neighbourhoods: "
            "there are no convolutions yet. Smaller images, or features of them, are learned from faster",
            env_id,
            describe(observation_space),
        )
    kind = next((kind for kind in algorithm.models if takes(kind, action_space)), None)
    if kind is None:
        others = sorted(
            other.name for other in _algorithms() if any(takes(kind, action_space) for kind in other.models)
        )
        raise InputError(
            f"{algorithm.name} does not work with action space {describe(action_space)} of environment {env_id!r}; "
            f"with it work: {', '.join(others)}"
        )
    return ModelSpec(kind, observation_space, action_space, policy_kwargs)


def _algorithms() -> list[type[Declaration]]:
    """Those whose modules are imported."""
    found, waiting = [], Declaration.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if hasattr(kind, "name"):
            found.append(kind)
    return found
