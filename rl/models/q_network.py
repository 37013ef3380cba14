"""A value for each of a finite number of actions, Q(s, ·); plain or dueling (Wang et al., 2016, arXiv 1511.06581)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .architecture import row_size
from .model import MLP, Model
from .spec import ModelSpec

ACTING_EPSILON = 0.05
"""How often a policy that is not deterministic takes a random action: the ε with which Mnih et al., 2015, evaluated."""


class QNetwork(Model):
    """`policy_kwargs` are fields of `QNetworkArchitecture`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        chosen = spec.architecture
        self.actions = row_size(spec.action_space)
        self.dueling = chosen.dueling
        self.q = MLP(self.inputs, chosen.net_arch, self.actions, chosen.activation)
        self.v = MLP(self.inputs, chosen.net_arch, 1, chosen.activation) if chosen.dueling else None

    def forward(self, rows: Tensor) -> Tensor:
        """Encoded observations → Q [B, actions]. Dueling: V + A − mean A (equation 9)."""
        q = self.q(rows)
        return q if self.v is None else self.v(rows) + q - q.mean(-1, keepdim=True)

    def outputs(self, rows: Tensor) -> Tensor:
        """Q [B, actions]."""
        return self(rows)

    def choose(self, outputs: Tensor, noise: Tensor | None, epsilon: float = ACTING_EPSILON) -> Tensor:
        """The action of the largest value, the first of equals; with noise ε-greedily.

        Where `noise[:, 0]` < ε it is that of the largest further noise, which is a uniform choice.
        """
        best = outputs.argmax(-1)
        return best if noise is None else torch.where(noise[:, 0] < epsilon, noise[:, 1:].argmax(-1), best)

    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """Uniform in [0, 1), [*rows, 1 + actions]."""
        return generator.random((*rows, 1 + self.actions), dtype=np.float32)
