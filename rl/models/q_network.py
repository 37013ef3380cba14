"""A value for each of a finite number of actions, Q(s, ·), or quantiles of its return; plain or dueling (Wang et al.,
2016, arXiv 1511.06581)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .distributions import FORBIDDEN, forbid
from .model import MLP, Model
from .plain_q import PlainQNetwork
from .rows import Rows
from .spec import ModelSpec

ACTING_EPSILON = 0.05
"""How often a policy that is not deterministic takes a random action: the ε with which Mnih et al., 2015, evaluated."""


def centred(advantages: Tensor, mask: Tensor | None) -> Tensor:
    """Advantages [B, actions, …] without their mean over the actions that `mask` [B, actions] allows, None: all."""
    if mask is None:
        return advantages - advantages.mean(1, keepdim=True)
    weights = (mask / mask.sum(1, keepdim=True)).reshape(*mask.shape, *(1,) * (advantages.ndim - 2))
    return advantages - (weights * advantages).sum(1, keepdim=True)


class QNetwork(Model):
    """`policy_kwargs` are fields of `QNetworkArchitecture`."""

    def __init__(self, spec: ModelSpec, numbers: int = 1) -> None:
        """`numbers` stand for the return of one action."""
        super().__init__(spec)
        chosen = spec.architecture
        features = self.make_encoder(chosen)
        self.q = MLP(features, chosen.net_arch, self.actions.row_size * numbers, chosen.activation)
        self.v = MLP(features, chosen.net_arch, numbers, chosen.activation) if chosen.dueling else None

    @cached_property
    def plain(self) -> PlainQNetwork | None:
        """The same network in numpy, where it is all that there is between vectors and values; else None."""
        simple = type(self) is QNetwork and self.encoder is None and self.v is None and self.flat.is_cpu
        return PlainQNetwork(self) if simple else None

    def forward(self, rows: Rows) -> Tensor:
        """Encoded observations → Q [B, actions], of forbidden ones the smallest number. Dueling: V + A − mean A
        (equation 9), the mean over those allowed."""
        features, mask = self.features(rows)
        q = self.q(features)
        return forbid(q if self.v is None else self.v(features) + centred(q, mask), mask)

    def outputs(self, rows: Rows) -> Tensor:
        """Q [B, actions]."""
        return self(rows)

    def choose(self, outputs: Tensor, noise: Tensor | None, epsilon: float | Tensor = ACTING_EPSILON) -> Tensor:
        """The action of the largest value, the first of equals; with noise ε-greedily.

        ε is one number, or one for each row [B]. Where `noise[:, 0]` < ε it is that of the largest further noise, which
        is a uniform choice of those allowed.
        """
        best = outputs.argmax(-1)
        if noise is None:
            return best
        uniform = noise[:, 1:].masked_fill(outputs == FORBIDDEN, -1.0).argmax(-1)
        return torch.where(noise[:, 0] < epsilon, uniform, best)

    def explore(self, rows: Rows, noise: Tensor, epsilon: float | Tensor) -> Tensor:
        """What `choose` makes of the outputs for these rows."""
        return self.choose(self.outputs(rows), noise, epsilon)

    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """Uniform in [0, 1), [*rows, 1 + actions]."""
        return generator.random((*rows, 1 + self.actions.row_size), dtype=np.float32)


class QuantileQNetwork(QNetwork):
    """N quantiles of the return of each action (Dabney et al., 2018, arXiv 1710.10044); Q is their mean.
    `policy_kwargs` are fields of `QuantileQNetworkArchitecture`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, spec.architecture.n_quantiles)
        self.n_quantiles: int = spec.architecture.n_quantiles

    def quantiles(self, rows: Rows) -> Tensor:
        """Encoded observations → [B, actions, N], those of τ̂_i = (i + ½) / N, i = 0 … N − 1, in no order that is
        enforced. Dueling: each quantile of V, plus that of A without its mean over actions."""
        features, mask = self.features(rows)
        advantages = self.q(features).unflatten(-1, (-1, self.n_quantiles))
        return advantages if self.v is None else self.v(features).unsqueeze(1) + centred(advantages, mask)

    def means(self, quantiles: Tensor, rows: Rows) -> Tensor:
        """Q [B, actions] from the quantiles in these rows, of forbidden actions the smallest number."""
        return forbid(quantiles.mean(-1), self.mask(rows))

    def forward(self, rows: Rows) -> Tensor:
        """Encoded observations → Q [B, actions]."""
        return self.means(self.quantiles(rows), rows)
