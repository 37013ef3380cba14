"""Whether a policy fits an environment: their spaces are compared before the one acts in the other."""

from typing import Any

from gymnasium import Space

from .errors import SpaceMismatchError
from .spaces import Role, codec, describe


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
        if isinstance(known, Space) and codec(known).essence(role) != codec(seen).essence(role):
            raise SpaceMismatchError(
                f"environment {name!r} has the {role} space {describe(seen)}, but the policy was made for "
                f"{describe(known)}: it cannot act there"
            )
