"""An actor, critics of its actions, and the value of a state: the models of IQL.

rows ─── actor   ──▶ what describes the distribution over actions
rows ─── critics ──▶ Q_1, Q_2 … of one action each [n_critics, B]
rows ─── value   ──▶ V [B]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .actor_q import ActorQ, ContinuousActorQ
from .distributions import Categorical, DiagonalGaussian
from .encoders import make_encoder
from .model import MLP
from .rows import Rows
from .spec import ModelSpec

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Limits of log σ, as in the authors' code: the likelihood of a few actions can be raised without limit."""


class _WithValue(ActorQ):
    def add_value(self) -> None:
        """Make V's part, as wide as a critic."""
        chosen = self.spec.architecture
        self.value_encoder = make_encoder(self.spec, chosen)
        self.value = MLP(self.width(self.value_encoder), chosen.net_arch[1], 1, chosen.activation)

    def state_values(self, rows: Rows) -> Tensor:
        """V [B]."""
        return self.value(self.encoded(rows, self.value_encoder)[0]).squeeze(-1)


class GaussianActorQV(_WithValue, ContinuousActorQ):
    """Continuous actions: a normal around tanh of the actor's output, σ the same in all states. Not squashed, so that
    an action on the bounds has a likelihood."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, outputs_per_action=1)
        self.actor.register_parameter("log_std", nn.Parameter(torch.zeros(self.actions.row_size)))
        self.add_value()

    def distribution(self, outputs: Tensor) -> DiagonalGaussian:
        """The distribution that the actor's outputs [B, K] describe."""
        return DiagonalGaussian(outputs.tanh(), self.actor.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX))  # type: ignore[operator]

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """The mean, or drawn actions within [−1, 1]."""
        distribution = self.distribution(outputs)
        return distribution.mode() if noise is None else distribution.sample(noise).clamp(-1, 1)

    def action_values(self, rows: Rows, actions: Tensor) -> Tensor:
        """Q of actions [B, K] by each critic, [n_critics, B]."""
        return self.values(rows, actions)


class CategoricalActorQV(_WithValue):
    """Discrete actions: the critics value each of them."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, critics_see_actions=False)
        self.add_value()

    def distribution(self, outputs: Tensor) -> Categorical:
        """The distribution that the actor's outputs [B, K] describe."""
        return Categorical(outputs)

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """The most probable actions, or drawn ones."""
        distribution = self.distribution(outputs)
        return distribution.mode() if noise is None else distribution.sample(noise)

    def action_values(self, rows: Rows, actions: Tensor) -> Tensor:
        """Q of actions [B] by each critic, [n_critics, B]."""
        features, _ = self.encoded(rows, self.critics_encoder)
        return torch.stack([critic(features).gather(-1, actions.unsqueeze(-1)).squeeze(-1) for critic in self.critics])
