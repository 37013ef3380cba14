"""Action distributions as pure functions of the head's outputs and of given noise.

No distribution draws a random number: `noise` makes numbers of a numpy stream, and `sample` turns outputs and noise
into actions. So the same stream gives the same actions on any device, in any process.

Each takes the head's outputs `logits` or `mean` of shape [B, K]; `log_prob` and `entropy` return [B].
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .architecture import row_size

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """What a policy needs of its distribution over actions."""

    def sample(self, noise: Tensor) -> Tensor:
        """Actions of `noise`, which `draw_noise` made for this action space."""

    def mode(self) -> Tensor:
        """The most probable actions."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """log π(actions), [B]."""

    def entropy(self) -> Tensor:
        """Entropy in nats, [B]."""


class Categorical:
    """One choice of K: actions [B] int64.

    log π(a) = logits_a − log Σ exp logits; sampled by Gumbel-max: argmax(logits + Gumbel noise)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, noise: Tensor) -> Tensor:
        """argmax(logits + noise), noise [B, K] standard Gumbel."""
        return (self.logits + noise).argmax(-1)

    def mode(self) -> Tensor:
        """argmax(logits); the first of equals."""
        return self.logits.argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """log softmax(logits)[action]."""
        return self.logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """−Σ p log p."""
        log_p = self.logits.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


class MultiCategorical:
    """Independent choices of nvec[0], nvec[1], …: actions [B, len(nvec)] int64, logits [B, Σ nvec] side by side."""

    def __init__(self, logits: Tensor, nvec: tuple[int, ...]) -> None:
        self.nvec = nvec
        self.parts = [Categorical(part) for part in logits.split(nvec, -1)]

    def sample(self, noise: Tensor) -> Tensor:
        """Gumbel-max per choice, noise [B, Σ nvec]."""
        noises = noise.split(self.nvec, -1)
        return torch.stack([part.sample(given) for part, given in zip(self.parts, noises, strict=True)], -1)

    def mode(self) -> Tensor:
        """The most probable of each choice."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Sum over the choices."""
        return torch.stack([part.log_prob(actions[..., i]) for i, part in enumerate(self.parts)], -1).sum(-1)

    def entropy(self) -> Tensor:
        """Sum over the choices."""
        return torch.stack([part.entropy() for part in self.parts], -1).sum(-1)


class Bernoulli:
    """Independent coins: actions [B, K] of 0 and 1, P(1) = sigmoid(logits)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, noise: Tensor) -> Tensor:
        """1 where logits + noise > 0, noise [B, K] standard logistic."""
        return (self.logits + noise > 0).long()

    def mode(self) -> Tensor:
        """1 where P(1) > 1/2."""
        return (self.logits > 0).long()

    def log_prob(self, actions: Tensor) -> Tensor:
        """Σ log sigmoid(±logits)."""
        return torch.nn.functional.logsigmoid(self.logits * (2 * actions - 1)).sum(-1)

    def entropy(self) -> Tensor:
        """Σ softplus(l) − l · sigmoid(l)."""
        return (torch.nn.functional.softplus(self.logits) - self.logits * self.logits.sigmoid()).sum(-1)


class DiagonalGaussian:
    """Independent normals: actions [B, K] float32, mean [B, K], log_std [K] independent of the state."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def sample(self, noise: Tensor) -> Tensor:
        """mean + σ · noise, noise [B, K] standard normal."""
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        """Σ −½((a − mean)/σ)² − log σ − ½ log 2π."""
        standardized = (actions - self.mean) * (-self.log_std).exp()
        return (-0.5 * standardized.square() - self.log_std - HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """Σ ½ + ½ log 2π + log σ, the same for every row."""
        return (0.5 + HALF_LOG_2PI + self.log_std).sum(-1).expand(len(self.mean))


class SquashedGaussian:
    """tanh of independent normals: actions [B, K] in (−1, 1); mean and log_std [B, K] are of the normals.

    log π(a) = Σ log N(u) − log(1 − tanh²(u)), u = atanh(a); the second term is 2 (log 2 − u − softplus(−2u)), which
    stays exact where 1 − tanh² rounds to 0 (Haarnoja et al., 2018, arXiv 1812.05905, appendix C).
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def sample(self, noise: Tensor) -> Tensor:
        """tanh(mean + σ · noise), noise [B, K] standard normal."""
        return self.sample_with_log_prob(noise)[0]

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and their log π [B], both with gradients to mean and σ."""
        before = self.mean + self.log_std.exp() * noise
        return before.tanh(), self._log_prob(before, noise)

    def mode(self) -> Tensor:
        """tanh of the mean: the median, which SAC's policy takes as its best action."""
        return self.mean.tanh()

    def log_prob(self, actions: Tensor) -> Tensor:
        """log π(actions), [B]; −1 and 1 count as the nearest numbers between them."""
        limit = 1 - torch.finfo(actions.dtype).eps
        before = actions.clamp(-limit, limit).atanh()
        return self._log_prob(before, (before - self.mean) * (-self.log_std).exp())

    def _log_prob(self, before: Tensor, standardized: Tensor) -> Tensor:
        normal = -0.5 * standardized.square() - self.log_std - HALF_LOG_2PI
        squash = 2 * (math.log(2) - before - torch.nn.functional.softplus(-2 * before))
        return (normal - squash).sum(-1)


def make_distribution(space: spaces.Space, outputs: Tensor, log_std: Tensor | None) -> Distribution:
    """The distribution over `space` that the head's `outputs` [B, row_size(space)] describe; a Box needs `log_std`."""
    if isinstance(space, spaces.Discrete):
        return Categorical(outputs)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(outputs, tuple(int(n) for n in np.ravel(space.nvec)))
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(outputs)
    assert log_std is not None
    return DiagonalGaussian(outputs, log_std)


def draw_noise(space: spaces.Space, stream: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
    """float32 noise [*rows, row_size(space)] from `stream`: what the distribution over `space` samples with."""
    shape = (*rows, row_size(space))
    if isinstance(space, spaces.Box):
        return stream.standard_normal(shape, dtype=np.float32)
    if isinstance(space, spaces.MultiBinary):
        return stream.logistic(size=shape).astype(np.float32)
    return stream.gumbel(size=shape).astype(np.float32)
