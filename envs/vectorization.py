"""How the environments of a group are stepped: copies one by one, or by a library that steps many at once."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np

from ..runtime import InputError
from .check import Inspection
from .errors import RecoveryWarning
from .group import EnvGroup
from .group_state import GroupState, Recovery
from .group_step import GroupStep
from .recovery import RecoveryChoice, choose_recovery, sample_actions
from .spec import EnvSpec
from .vector_group import VectorGroup
from .vector_sources import make_source

_TRIAL_STEPS = 64
_NO_WAY = RecoveryChoice("restart", False, needs_actions=False)


class Group(Protocol):
    """What a rollout worker steps."""

    observations: np.ndarray
    """[size, …] current ones."""
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    resets_on_next_step: bool
    """Whether steps may have `GroupStep.resets`."""

    def reset(self) -> np.ndarray:
        """Begin the next episode everywhere."""

    def step(self, actions: np.ndarray) -> GroupStep:
        """Take one step everywhere."""

    def state(self) -> GroupState:
        """What `restore` needs."""

    def restore(self, state: GroupState) -> bool:
        """Go on from a state; returns whether the episodes in progress go on."""

    def close(self) -> None:
        """Close all environments."""


def make_group(
    kind: str,
    spec: EnvSpec,
    *,
    size: int,
    first_index: int,
    run_seed: int,
    recovery: RecoveryChoice | None = None,
    check: str = "error",
    step_timeout: float | None = None,
    end_process: Callable[[str], None] | None = None,
    most_action_bytes: int = 0,
) -> Group:
    """Return a group of a kind, one of `vector_sources.KINDS`; arguments as of `EnvGroup`."""
    common: dict[str, Any] = {
        "size": size, "first_index": first_index, "run_seed": run_seed, "check": check,
    }  # fmt: skip
    if kind == "sync":
        own: dict[str, Any] = {
            "recovery": recovery,
            "step_timeout": step_timeout,
            "end_process": end_process,
            "most_action_bytes": most_action_bytes,
        }
        return EnvGroup(spec, **common, **own)
    return VectorGroup(kind, spec, recovery=_NO_WAY if recovery is None else recovery, **common)


def check_vectorization(kind: str, found: Inspection, run_seed: int, mode: str) -> Inspection:
    """Return an inspection with the spaces of the vector version, after random steps in it; `kind` is not sync.

    Raises:
        InputError: there is none, it has spaces that are not supported, or the environment tells masks in its info.
    """
    spec = found.spec
    if spec.mask_from_info:
        raise InputError(
            f"{spec.id!r} tells its action mask in info, which vectorization {kind!r} does not take: choose 'sync'"
        )
    with VectorGroup(kind, spec, size=2, first_index=0, run_seed=run_seed, recovery=_NO_WAY, check=mode) as group:
        group.reset()
        for actions in _random_actions(group.action_space, _TRIAL_STEPS):
            group.step(actions)
        return dataclasses.replace(found, observation_space=group.observation_space, action_space=group.action_space)


def choose_group_recovery(kind: str, spec: EnvSpec, run_seed: int) -> RecoveryChoice:
    """Try on throw-away groups how one can be put back; as `choose_recovery`, which it is for copies.

    Warns:
        RecoveryWarning: there is no exact way back.
    """
    if kind == "sync":
        return choose_recovery(spec, run_seed, 0)
    source = make_source(kind, spec, 1)
    seeded = source.seeded
    source.close()
    ways: tuple[Recovery, ...] = ("own_state", "replay") if seeded else ("own_state",)
    problems: list[str] = []
    for way in ways:
        choice = RecoveryChoice(way, way == "replay", needs_actions=way == "replay", problems=tuple(problems))
        problem = _problem_of(choice, kind, spec, run_seed)
        if problem is None:
            return choice
        problems.append(f"{way}: {problem}")
    warnings.warn(
        f"environment {spec.id!r} stepped by {kind} cannot be put back where it was ({'; '.join(problems)}). If a "
        "worker is lost, or the run is resumed, its episodes in progress are dropped and results may differ",
        RecoveryWarning,
        stacklevel=2,
    )
    return dataclasses.replace(_NO_WAY, problems=tuple(problems))


def _problem_of(choice: RecoveryChoice, kind: str, spec: EnvSpec, run_seed: int) -> str | None:
    """Return why a way back is not exact; None if it is."""
    common: dict[str, Any] = {"size": 2, "first_index": 0, "run_seed": run_seed, "recovery": choice}
    with VectorGroup(kind, spec, **common) as original, VectorGroup(kind, spec, **common) as fresh:
        original.reset()
        fresh.reset()
        before, after = np.split(np.stack(_random_actions(original.action_space, 2 * _TRIAL_STEPS)), 2)
        for actions in before:
            original.step(actions)
        try:
            fresh.restore(original.state())
        except (TypeError, NotImplementedError, RuntimeError) as error:
            return str(error)
        same = all(_bits(original.step(actions)) == _bits(fresh.step(actions)) for actions in after)
    return None if same else "it goes on differently"


def _bits(step: GroupStep) -> tuple[bytes, ...]:
    arrays = (step.observations, step.final_observations, step.rewards, step.terminations, step.truncations)
    return tuple(array.tobytes() for array in arrays)


def _random_actions(space: gymnasium.Space, steps: int) -> list[np.ndarray]:
    drawn = np.stack(sample_actions(space, 2 * steps, seed=0))
    return list(drawn.reshape(steps, 2, *drawn.shape[1:]))


def has_vector_version(env_id: str) -> bool:
    """Return whether an id that is registered with gymnasium, here, has a `vector_entry_point`."""
    found = gymnasium.registry.get(env_id)
    return found is not None and found.vector_entry_point is not None
