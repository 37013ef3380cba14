"""Whether an environment's two spaces are whole: gymnasium checks them when they are made, not what is set later."""

import gymnasium

from ..runtime import InputError
from .spaces import Role, are_texts, check_supported, codec


def spaces_problem(env: gymnasium.Env) -> str | None:
    """Return what is wrong with an environment's spaces, or None.

    Raises:
        InputError: a space that is not supported.
    """
    if are_texts(getattr(env, "observation_space", None), getattr(env, "action_space", None)):
        return None
    roles: tuple[Role, Role] = ("observation", "action")
    for role in roles:
        space = getattr(env, f"{role}_space", None)
        if space is None:
            return f"it sets no {role}_space: set self.{role}_space in __init__, such as gymnasium.spaces.Box(…)"
        if isinstance(space, gymnasium.Space):
            wrong = codec(space, role).flaw(f"{role}_space")
            if wrong is not None:
                return wrong
        check_supported(space, role)
    return None


def check_spaces(env: gymnasium.Env, environment_id: str) -> str | None:
    """Return what is wrong with the spaces; as `spaces_problem`, with the environment's id in what it raises."""
    try:
        return spaces_problem(env)
    except InputError as error:
        raise type(error)(f"environment {environment_id!r}: {error}") from None
