"""Making the copies of an environment that a group steps."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium

from ..runtime import InputError, lookup, publish
from .errors import EnvContractError
from .generators import own_generators
from .reproducer import Moment, add_note
from .seeding import derive_seed
from .spaces import Role, check_supported, describe
from .spec import EnvSpec


def make_copy(spec: EnvSpec, run_seed: int, environment: int) -> gymnasium.Env:
    """Return a new environment, whose constructor finds global generators that depend on run and index alone.

    Args:
        spec: what it is made from.
        run_seed: seed of the run.
        environment: its logical index in the run.

    Raises:
        InputError: as `EnvSpec.make`.
        Exception: whatever the constructor raises, with a note that names the environment.
    """
    try:
        with own_generators(derive_seed(run_seed, "constructor", environment)), _warnings_shown_once():
            return spec.make()
    except InputError:
        raise
    except Exception as error:
        add_note(error, spec, Moment(environment), "__init__")
        raise


@contextmanager
def _warnings_shown_once() -> Iterator[None]:
    """Show of what the constructor's libraries warn of only what no copy before has, in whatever process."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        key = f"envs/warned/{warning.category.__name__}: {warning.message}"
        if lookup(key) is None:
            publish(key, True)
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def common_spaces(
    envs: list[gymnasium.Env], spec: EnvSpec, first_index: int
) -> tuple[gymnasium.Space, gymnasium.Space]:
    """Return the observation and the action space that all copies have.

    Raises:
        InputError: a space that is not supported.
        EnvContractError: copies differ.
    """
    roles: tuple[Role, Role] = ("observation", "action")
    for role in roles:
        spaces: list[Any] = [getattr(env, f"{role}_space", None) for env in envs]
        for index, space in enumerate(spaces):
            check_supported(space, role)
            if space != spaces[0]:
                raise EnvContractError(
                    f"environment {spec.id!r}: copies differ: {role}_space of index {first_index} is "
                    f"{describe(spaces[0])}, of index {first_index + index} {describe(space)}"
                )
    return envs[0].observation_space, envs[0].action_space
