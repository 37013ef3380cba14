"""Actor and critic of one of several agents, whose critic sees what all of them see (MAPPO: Yu et al., 2022, arXiv
2103.01955); the policy, which acts alone, sees its own agent's observations only.

    own ── encoder ── memory ─┬─────▶ pi ─▶ outputs [B, K]
                              └─┬─▶ vf ─▶ values [B]
    what the critic sees ───────┘
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from gymnasium.spaces import Dict
from torch import Tensor

from ...envs import CRITIC, MASK, OWN, codec, own_space
from .actor_critic import ActorCritic
from .architecture import EncoderChoice
from .distributions import forbid
from .encoders import make_encoder
from .rows import Recalled, Rows, Sequences
from .spec import ModelSpec


class CentralActorCritic(ActorCritic):
    """`policy_kwargs` are fields of `ActorCriticArchitecture`. Features are the agent's own ones, then the critic's."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._own = self.pi.layers[0].in_features

    def make_encoder(self, chosen: EncoderChoice) -> int:
        """Make the encoder of the agent's own observations; returns the width of its features."""
        space: Any = own_space(self.spec.observation_space)
        if MASK in getattr(codec(space), "parts", {}):
            space = Dict([(name, part) for name, part in space.items() if name != MASK])
        own = replace(self.spec, kind="actor_critic", observation_space=Dict({OWN: space}))
        self.encoder = make_encoder(own, chosen)
        return self.width(self.encoder)

    def value_inputs(self, features: int) -> int:
        """Width of what the value is made of."""
        return features + int(self.spec.observation_space[CRITIC].shape[0])  # type: ignore[index]

    def features(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """As of `Model`: own features, which come first, and the critic's."""
        if isinstance(rows, Recalled):
            return rows.features, rows.mask
        if not isinstance(rows, Sequences):
            own, mask = self.encoded(rows, self.encoder)
            return torch.cat([own, _critic(rows)], -1), mask
        own, mask = super().features(rows)
        return torch.cat([own, _critic(rows.inputs)[rows.valid]], -1), mask

    def recall(self, rows: Rows, memory: Any) -> tuple[Rows, Any]:
        """As of `Model`."""
        recalled, memory = super().recall(rows, memory)
        if not isinstance(recalled, Recalled):
            return recalled, memory
        features = torch.cat([recalled.features, _critic(rows)], -1)
        return Recalled(features, recalled.mask), memory

    def forward(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Encoded observations → outputs [B, K] and values [B]."""
        features, mask = self.features(rows)
        return forbid(self.pi(features[:, : self._own]), mask), self.vf(features).squeeze(-1)

    def outputs(self, rows: Rows) -> Tensor:
        """What describes the distributions."""
        features, mask = self.features(rows)
        return forbid(self.pi(features[:, : self._own]), mask)


def _critic(rows: Any) -> Tensor:
    return rows[CRITIC]
