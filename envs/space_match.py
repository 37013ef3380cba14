"""Whether a policy fits an environment: their spaces are compared before the one acts in the other."""

from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box

from .errors import SpaceMismatchError
from .spaces import Role, describe, space_to_json


def check_same_spaces(policy: Any, env: Any, name: str) -> None:
    """Refuse an environment whose spaces are not those that a policy was made for.

    Args:
        policy: has `observation_space` and `action_space`; one that it lacks is not compared.
        env: has both.
        name: of the environment, for the message.

    Raises:
        SpaceMismatchError: they differ in more than the bounds of observations.
    """
    roles: tuple[Role, Role] = ("observation", "action")
    for role in roles:
        known, seen = getattr(policy, f"{role}_space", None), getattr(env, f"{role}_space")
        if isinstance(known, Space) and _essence(known, role) != _essence(seen, role):
            raise SpaceMismatchError(
                f"environment {name!r} has the {role} space {describe(seen)}, but the policy was made for "
                f"{describe(known)}: it cannot act there"
            )


def _essence(space: Space, role: Role) -> Any:
    # No network scales by the bounds of observations, and versions of one environment differ in how tight they are.
    if isinstance(space, Box) and role == "observation":
        return space.shape, np.dtype(space.dtype)
    return space_to_json(space)
