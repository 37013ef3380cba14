"""Actor and critic: a distribution over actions, and the value of a state.

    rows [B, inputs] ─┬─ pi ─▶ outputs [B, K], which describe the distribution
                      └─ vf ─▶ values [B]

They share no layer, as in Stable-Baselines3's `MlpPolicy`. Evaluating both as one batched product was measured and is
not faster.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from .architecture import row_size
from .distributions import Distribution, draw_noise, make_distribution
from .model import MLP, Model
from .spec import ModelSpec


class ActorCritic(Model):
    """`policy_kwargs` are fields of `ActorCriticArchitecture`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        chosen = spec.architecture
        policy_gain, value_gain = (0.01, 1.0) if chosen.ortho_init else (None, None)
        outputs, (pi, vf) = row_size(spec.action_space), chosen.net_arch
        self.pi = MLP(self.inputs, pi, outputs, chosen.activation, policy_gain)
        self.vf = MLP(self.inputs, vf, 1, chosen.activation, value_gain)
        is_continuous = isinstance(spec.action_space, spaces.Box)
        self.log_std = nn.Parameter(torch.full((outputs,), chosen.log_std_init)) if is_continuous else None

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded observations → outputs [B, K] and values [B]."""
        return self.pi(rows), self.vf(rows).squeeze(-1)

    def values(self, rows: Tensor) -> Tensor:
        """Values [B] alone."""
        return self.vf(rows).squeeze(-1)

    def distribution(self, outputs: Tensor) -> Distribution:
        """The distribution over actions that outputs [B, K] describe."""
        return make_distribution(self.spec.action_space, outputs, self.log_std)

    def evaluate(self, rows: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values [B], log-probabilities [B] and entropies [B] of `actions` in encoded observations, with gradients."""
        outputs, values = self(rows)
        distribution = self.distribution(outputs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def outputs(self, rows: Tensor) -> Tensor:
        """What describes the distributions."""
        return self.pi(rows)

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """The most probable actions, or drawn ones."""
        distribution = self.distribution(outputs)
        return distribution.mode() if noise is None else distribution.sample(noise)

    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """Noise of the kind that the distribution samples with."""
        return draw_noise(self.spec.action_space, generator, rows)

    def standard_deviation(self) -> float | None:
        """Mean standard deviation of Gaussian actions; None for other action spaces."""
        return None if self.log_std is None else float(self.log_std.detach().exp().mean())
