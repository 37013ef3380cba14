"""Actor and critic: a distribution over actions, and the value of a state.

    rows ── encoder ── memory ─┬─ pi ─▶ outputs [B, K], which describe the distribution
                               └─ vf ─▶ values [B]

Of a vector, without memory, they share no layer, as in Stable-Baselines3's `MlpPolicy`. Evaluating both as one batched
product was measured and is not faster.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from .distributions import Distribution, continuous_size, draw_noise, forbid, make_distribution
from .memory import make_memory
from .model import MLP, Model
from .plain import PlainActorCritic
from .rows import Rows
from .spec import ModelSpec


class ActorCritic(Model):
    """`policy_kwargs` are fields of `ActorCriticArchitecture`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        chosen = spec.architecture
        policy_gain, value_gain = (0.01, 1.0) if chosen.ortho_init else (None, None)
        features = self.make_encoder(chosen)
        self.memory = make_memory(chosen, features)
        features = features if self.memory is None else self.memory.features
        outputs, (pi, vf) = self.actions.row_size, chosen.net_arch
        self.pi = MLP(features, pi, outputs, chosen.activation, policy_gain)
        self.vf = MLP(self.value_inputs(features), vf, 1, chosen.activation, value_gain)
        continuous = continuous_size(self.actions)
        self.log_std = nn.Parameter(torch.full((continuous,), chosen.log_std_init)) if continuous else None

    def value_inputs(self, features: int) -> int:
        """Width of what the value is made of, beside a policy that is made of so many features."""
        return features

    @property
    def shares_layers(self) -> bool:
        """Whether policy and value have layers in common."""
        return self.encoder is not None or self.memory is not None

    @cached_property
    def plain(self) -> PlainActorCritic | None:
        """The same networks in numpy, where they are all that there is between vectors and actions of one kind; else
        None."""
        simple = type(self) is ActorCritic and not self.shares_layers and self.flat.is_cpu
        return PlainActorCritic(self) if simple and self.actions.kind in ("Discrete", "Box") else None

    def forward(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Encoded observations → outputs [B, K] and values [B]."""
        features, mask = self.features(rows)
        return forbid(self.pi(features), mask), self.vf(features).squeeze(-1)

    def values(self, rows: Rows) -> Tensor:
        """Values [B] alone."""
        return self.vf(self.features(rows)[0]).squeeze(-1)

    def distribution(self, outputs: Tensor) -> Distribution:
        """The distribution over actions that outputs [B, K] describe."""
        return make_distribution(self.actions, outputs, self.log_std)

    def evaluate(self, rows: Rows, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values [B], log-probabilities [B] and entropies [B] of `actions` in encoded observations, with gradients."""
        outputs, values = self.forward(
            rows
        )  # not as a module: no hooks are used, and to look for them takes as long as a small layer
        distribution = self.distribution(outputs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def outputs(self, rows: Rows) -> Tensor:
        """What describes the distributions."""
        features, mask = self.features(rows)
        return forbid(self.pi(features), mask)

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """The most probable actions, or drawn ones."""
        distribution = self.distribution(outputs)
        return distribution.mode() if noise is None else distribution.sample(noise)

    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """Noise of the kind that the distribution samples with."""
        return draw_noise(self.actions, generator, rows)

    def standard_deviation(self) -> float | None:
        """Mean standard deviation of Gaussian actions; None for other action spaces."""
        return None if self.log_std is None else float(self.log_std.detach().exp().mean())
