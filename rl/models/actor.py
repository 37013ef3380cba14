"""A policy without a critic, which chooses the best action always: what is searched for without gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .distributions import continuous_size, forbid, make_distribution
from .model import MLP, Model
from .rows import Rows
from .spec import ModelSpec


class Actor(Model):
    """`policy_kwargs` are fields of `ActorArchitecture`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        chosen = spec.architecture
        features = self.make_encoder(chosen)
        gain = 0.01 if chosen.ortho_init else None
        self.pi = MLP(features, chosen.net_arch, self.actions.row_size, chosen.activation, gain)
        self._log_std = torch.zeros(continuous_size(self.actions))

    def outputs(self, rows: Rows) -> Tensor:
        """Numbers of continuous actions, scores of choices: [B, K]."""
        features, mask = self.features(rows)
        return forbid(self.pi(features), mask)

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """The numbers themselves, and of choices those with the highest score; nothing is drawn."""
        return make_distribution(self.actions, outputs, self._log_std).mode()

    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """None: [*rows, 0]."""
        return np.zeros((*rows, 0), np.float32)
