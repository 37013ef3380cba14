"""Wrappers that learn to scale observations while a policy trains: refused, since no policy is saved with that."""

from __future__ import annotations

from typing import Any

import gymnasium

from .errors import EnvContractError


def refuse_learned_state(env: gymnasium.Env, env_id: str) -> None:
    """Raise EnvContractError if a wrapper scales observations by what it has seen: whatever it declares of itself.

    A policy that is evaluated, served or resumed would meet fresh statistics, and with them other numbers than those
    that it was trained with, without a word. Statistics that are not updated, and those of rewards, which no policy
    sees, are let through.
    """
    level: Any = env
    while level is not None:
        if any(
            _is_of_observations(name, value) for name, value in getattr(level, "__dict__", {}).items()
        ) and _is_updated(level):
            raise EnvContractError(
                f"environment {env_id!r}: the wrapper {type(level).__name__} scales observations by running "
                "statistics, which are not saved with a policy: evaluated, served or resumed, it would see other "
                "numbers than in training. Leave it out and scale by fixed ones, with "
                "gymnasium.wrappers.TransformObservation or RescaleObservation; or set its statistics, and freeze them "
                "with update_running_mean = False"
            )
        level = level.env if isinstance(level, gymnasium.Wrapper) else None


def _is_of_observations(name: str, value: Any) -> bool:
    """Whether an attribute holds running statistics (every library's class has that name) of observations."""
    kind = type(value).__name__
    return kind == "RunningMeanStd" and not name.lstrip("_").startswith(("ret", "rew"))


def _is_updated(wrapper: Any) -> bool:
    return bool(getattr(wrapper, "update_running_mean", getattr(wrapper, "training", True)))
