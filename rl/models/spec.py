"""What a model is made from: its kind, the spaces it stands between, and the choices of its network. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gymnasium import Space

from ...envs import LeafCodec, are_texts, check_supported, codec, describe, space_from_json, space_to_json
from ...runtime import InputError
from .architecture import (
    ARCHITECTURES,
    CONVOLUTIONS,
    QNetworkArchitecture,
    image_encoder,
    plain_kwargs,
    read_architecture,
)
from .network_checks import check_encoder, check_memory
from .own_modules import check_import_path

_ACTIONS: dict[str, tuple[str, ...]] = {
    "actor_critic": ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple"),
    "actor": ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple"),
    "central_actor_critic": ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple"),
    "q_network": ("Discrete",),
    "quantile_q_network": ("Discrete",),
    "gaussian_actor_q": ("Box",),
    "categorical_actor_q": ("Discrete",),
    "deterministic_actor_q": ("Box",),
    "gaussian_actor_qv": ("Box",),
    "categorical_actor_qv": ("Discrete",),
    "language_model": ("Text",),
}
"""Kinds of action spaces, as gymnasium calls them, that each kind of model chooses from."""
_BOUNDED = ("gaussian_actor_q", "deterministic_actor_q", "gaussian_actor_qv")
"""Kinds whose actions fill the space between its bounds."""


def takes(kind: str, action_space: Space) -> bool:
    """Whether a kind of model chooses actions of this space."""
    found = codec(action_space)
    return found.kind in _ACTIONS[kind] and (kind not in _BOUNDED or bool(action_space.is_bounded()))  # type: ignore[attr-defined]


def _shown(value: Any) -> str:
    return describe(value) if isinstance(value, Space) else str(value)


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
    normalized: bool = False
    """Whether observations are shifted and scaled by running statistics, which are part of the model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy_kwargs", plain_kwargs(self.policy_kwargs))
        if not self.is_language:
            check_supported(self.observation_space, "observation")
            check_supported(self.action_space, "action")
        if self.kind not in ARCHITECTURES:
            raise InputError(f"there is no kind of model {self.kind!r}, but {', '.join(ARCHITECTURES)}")
        if not takes(self.kind, self.action_space):
            others = [name for name in _ACTIONS if takes(name, self.action_space) and name != "central_actor_critic"]
            raise InputError(
                f"action space {describe(self.action_space)} does not work with a {self.kind}, but with: "
                f"{', '.join(others)}"
            )
        chosen = self.architecture
        if self.is_language:
            return
        check_encoder(chosen, {"/".join(path): leaf for path, leaf in codec(self.observation_space).leaves()})
        check_memory(chosen)

    @property
    def is_language(self) -> bool:
        """Whether it is a language model, between two spaces of texts."""
        return self.kind == "language_model" and are_texts(self.observation_space, self.action_space)

    def check_own_modules(self, folder: Path | None = None) -> None:
        """Raise InputError if a module of the user's own is not there, or lies in `folder`, from where this was read.

        Such modules are not imported here: that would import torch.
        """
        for slot in ("encoder", "memory"):
            path = getattr(self.architecture, slot, "")
            if ":" in path:
                check_import_path(f"policy_kwargs[{slot!r}]", path, folder)

    @cached_property
    def architecture(self) -> Any:
        """The network's resolved choices."""
        chosen = read_architecture(self.kind, self.policy_kwargs)
        if self.is_language or "net_arch" in self.policy_kwargs or not self._is_convolutional:
            return chosen
        # The encoder's last layer is the hidden one, as in Stable-Baselines3's `CnnPolicy`.
        return replace(chosen, net_arch=() if isinstance(chosen, QNetworkArchitecture) else ((), ()))

    @property
    def sequence_length(self) -> int:
        """Steps of the sequences that a memory learns from."""
        return int(getattr(self.architecture, "sequence_length", 1))

    @property
    def has_memory(self) -> bool:
        """Whether it remembers earlier steps."""
        return getattr(self.architecture, "memory", "none") != "none"

    def keeps(self, image: LeafCodec) -> bool:
        """Whether the encoder gets images as they are, not flattened."""
        return ":" in self.encoder or image_encoder(self.encoder, image.shape) in CONVOLUTIONS

    @cached_property
    def encoder(self) -> str:
        """Its name, as it was chosen."""
        return str(read_architecture(self.kind, self.policy_kwargs).encoder)

    @property
    def _is_convolutional(self) -> bool:
        images = [leaf for _, leaf in codec(self.observation_space).leaves() if leaf.is_image]
        return any(":" not in self.encoder and self.keeps(leaf) for leaf in images)

    def unlike(self, wanted: ModelSpec) -> str:
        """In what it is not `wanted`, each part with what is wanted; "" if in nothing."""
        parts = {
            "kind": (self.kind, wanted.kind),
            "observation space": (self.observation_space, wanted.observation_space),
            "action space": (self.action_space, wanted.action_space),
            "policy_kwargs": (self.policy_kwargs, wanted.policy_kwargs),
            "observations are normalized": (self.normalized, wanted.normalized),
        }
        return "; ".join(
            f"{name}: {_shown(found)}, wanted {_shown(want)}" for name, (found, want) in parts.items() if found != want
        )

    def to_json(self) -> dict[str, Any]:
        """Entries of policy.json."""
        return {
            "model": self.kind,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "policy_kwargs": dict(self.policy_kwargs),
            "normalized": self.normalized,
        }

    @staticmethod
    def from_json(entries: Mapping[str, Any]) -> ModelSpec:
        """The spec that `to_json` described. Raises KeyError if an entry is missing, InputError if one is wrong."""
        return ModelSpec(
            entries["model"],
            space_from_json(entries["observation_space"]),
            space_from_json(entries["action_space"]),
            entries["policy_kwargs"],
            bool(entries["normalized"]),
        )
