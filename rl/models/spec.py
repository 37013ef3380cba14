"""What a model is made from: its kind, the spaces it stands between, and the choices of its network. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gymnasium import Space, spaces

from ...envs import check_supported, describe, space_from_json, space_to_json
from ...runtime import InputError, in_plain_numbers
from .architecture import ARCHITECTURES, read_architecture

_ACTIONS: dict[str, tuple[type[Space], ...]] = {
    "actor_critic": (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
    "q_network": (spaces.Discrete,),
    "gaussian_actor_q": (spaces.Box,),
    "categorical_actor_q": (spaces.Discrete,),
    "deterministic_actor_q": (spaces.Box,),
}
_BOUNDED = ("gaussian_actor_q", "deterministic_actor_q")
"""Kinds whose actions fill the space between its bounds."""


def takes(kind: str, action_space: Space) -> bool:
    """Whether a kind of model chooses actions of this space."""
    bounded = not isinstance(action_space, spaces.Box) or action_space.is_bounded()
    return isinstance(action_space, _ACTIONS[kind]) and (bounded or kind not in _BOUNDED)


@dataclass(frozen=True)
class ModelSpec:
    """Can be pickled, and written as JSON beside the weights.

    Raises InputError if the kind of model does not work between these spaces, or for bad `policy_kwargs`.
    """

    kind: str
    """Name of the model: a key of `ARCHITECTURES`."""
    observation_space: Space
    action_space: Space
    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Choices of the network: fields of the kind's architecture."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy_kwargs", in_plain_numbers(dict(self.policy_kwargs)))
        check_supported(self.observation_space, "observation")
        check_supported(self.action_space, "action")
        if self.kind not in ARCHITECTURES:
            raise InputError(f"there is no kind of model {self.kind!r}, but {', '.join(ARCHITECTURES)}")
        if not takes(self.kind, self.action_space):
            others = [name for name in _ACTIONS if takes(name, self.action_space)]
            raise InputError(
                f"action space {describe(self.action_space)} does not work with a {self.kind}, but with: "
                f"{', '.join(others)}"
            )
        _ = self.architecture

    @property
    def architecture(self) -> Any:
        """The network's resolved choices."""
        return read_architecture(self.kind, self.policy_kwargs)

    def to_json(self) -> dict[str, Any]:
        """Entries of policy.json."""
        return {
            "model": self.kind,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "policy_kwargs": dict(self.policy_kwargs),
        }

    @staticmethod
    def from_json(entries: Mapping[str, Any]) -> ModelSpec:
        """The spec that `to_json` described. Raises KeyError if an entry is missing, InputError if one is wrong."""
        return ModelSpec(
            entries["model"],
            space_from_json(entries["observation_space"]),
            space_from_json(entries["action_space"]),
            entries["policy_kwargs"],
        )
