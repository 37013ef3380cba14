"""Two spaces without an environment: what a training for simulators outside begins from, where gymnasium has none."""

from collections.abc import Mapping
from typing import Any, NoReturn

import gymnasium
from gymnasium import Space

from ...runtime import InputError
from ..spaces import space_from_json, space_to_json
from ..spec import EnvSpec

EXTERNAL = "External"


class External(gymnasium.Env):
    """Spaces only: it is trained with `listen`, and cannot be stepped from here. Under the id "External".

    Args:
        observation_space: as `space_to_json` describes it, or a space.
        action_space: the same.

    Raises:
        InputError: one of them is no space.
    """

    def __init__(self, observation_space: Mapping[str, Any] | Space, action_space: Mapping[str, Any] | Space) -> None:
        self.observation_space, self.action_space = (
            space if isinstance(space, Space) else space_from_json(space) for space in (observation_space, action_space)
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> NoReturn:
        """Refuse."""
        raise InputError(
            "External has spaces only, it cannot be stepped: train with listen='HOST:PORT' (--listen), so that "
            "simulators connect; evaluate in another environment (env=…, --env), or let simulators ask a served policy"
        )

    def step(self, action: Any) -> NoReturn:
        """Refuse."""
        self.reset()
        raise AssertionError("reset raises")


def external_env(observation_space: Space, action_space: Space, *, reward_threshold: float | None = None) -> EnvSpec:
    """Return what a training of simulators outside begins from: `PPO(external_env(…), listen="127.0.0.1:50051")`.

    Args:
        observation_space: of the simulators.
        action_space: of the simulators.
        reward_threshold: mean return from which on the task counts as solved.
    """
    described = {"observation_space": space_to_json(observation_space), "action_space": space_to_json(action_space)}
    return EnvSpec(EXTERNAL, External, described, reward_threshold=reward_threshold)
