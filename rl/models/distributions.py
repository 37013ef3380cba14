"""Action distributions as pure functions of the head's outputs and of given noise.

No distribution draws a random number: `noise` makes numbers of a numpy stream, and `sample` turns outputs and noise
into actions. So the same stream gives the same actions on any device, in any process.

Each takes the head's outputs `logits` or `mean` of shape [B, K]; `log_prob` and `entropy` return [B].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...envs import LeafCodec, SpaceCodec

FORBIDDEN = torch.finfo(torch.float32).min
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""Hard limits of log σ where it depends on the state, as in the authors' code of SAC and Stable-Baselines3."""
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

    @cached_property
    def _log_p(self) -> Tensor:
        return self.logits.log_softmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """log softmax(logits)[action]."""
        return self._log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """−Σ p log p."""
        return -(self._log_p.exp() * self._log_p).sum(-1)


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
        return (self.mean + self.log_std.exp() * noise).tanh()

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


class Product:
    """Independent parts side by side: actions [B, Σ] float32, outputs and noise of the parts side by side, too."""

    def __init__(self, parts: Sequence[Distribution], sizes: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        self.parts, self.sizes, self.outputs = parts, sizes, outputs

    def sample(self, noise: Tensor) -> Tensor:
        """Of each part."""
        noises = noise.split(self.outputs, -1)
        return self._joined([part.sample(given) for part, given in zip(self.parts, noises, strict=True)])

    def mode(self) -> Tensor:
        """Of each part."""
        return self._joined([part.mode() for part in self.parts])

    def log_prob(self, actions: Tensor) -> Tensor:
        """Sum over the parts."""
        given = zip(self.parts, actions.split(self.sizes, -1), strict=True)
        return torch.stack([part.log_prob(_own(part, action)) for part, action in given], -1).sum(-1)

    def entropy(self) -> Tensor:
        """Sum over the parts."""
        return torch.stack([part.entropy() for part in self.parts], -1).sum(-1)

    @staticmethod
    def _joined(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.float().reshape(len(part), -1) for part in parts], -1)


def _own(part: Distribution, actions: Tensor) -> Tensor:
    """Columns of a product's actions as the part's own: whole numbers are exact in float32."""
    if isinstance(part, Categorical):
        return actions.squeeze(-1).long()
    return actions if isinstance(part, DiagonalGaussian) else actions.long()


def make_distribution(found: SpaceCodec, outputs: Tensor, log_std: Tensor | None) -> Distribution:
    """The distribution over a space that the head's `outputs` [B, row_size] describe; Boxes in it need `log_std`, for
    all of them side by side."""
    if isinstance(found, LeafCodec):
        return _leaf_distribution(found, outputs, log_std)
    leaves = [leaf for _, leaf in found.leaves()]
    sizes = tuple(leaf.row_size for leaf in leaves)
    parts: list[Distribution] = []
    at = 0
    for leaf, own in zip(leaves, outputs.split(sizes, -1), strict=True):
        is_box = leaf.kind == "Box"
        parts.append(
            _leaf_distribution(leaf, own, log_std[at : at + leaf.row_size] if is_box and log_std is not None else None)
        )
        at += leaf.row_size if is_box else 0
    return Product(parts, tuple(math.prod(leaf.shape) for leaf in leaves), sizes)


def _leaf_distribution(leaf: LeafCodec, outputs: Tensor, log_std: Tensor | None) -> Distribution:
    if leaf.kind == "Discrete":
        return Categorical(outputs)
    if leaf.kind == "MultiDiscrete":
        return MultiCategorical(outputs, leaf.choices)
    if leaf.kind == "MultiBinary":
        return Bernoulli(outputs)
    assert log_std is not None
    return DiagonalGaussian(outputs, log_std)


def continuous_size(found: SpaceCodec) -> int:
    """Numbers of an action that are continuous."""
    return sum(leaf.row_size for _, leaf in found.leaves() if leaf.kind == "Box")


def draw_noise(found: SpaceCodec, stream: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
    """float32 noise [*rows, row_size] from `stream`: what the distribution over a space samples with."""
    drawn = [_leaf_noise(leaf, stream, (*rows, leaf.row_size)) for _, leaf in found.leaves()]
    return drawn[0] if len(drawn) == 1 else np.concatenate(drawn, -1)


def _leaf_noise(leaf: LeafCodec, stream: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if leaf.kind == "Box":
        return stream.standard_normal(shape, dtype=np.float32)
    if leaf.kind == "MultiBinary":
        return stream.logistic(size=shape).astype(np.float32)
    return stream.gumbel(size=shape).astype(np.float32)


def forbid(outputs: Tensor, mask: Tensor | None) -> Tensor:
    """Outputs [B, K] with the smallest number where `mask` [B, K] is false, so that what they stand for is never chosen
    and has a probability of exactly 0. Not −∞, of which 0 · log 0 would be NaN."""
    return outputs if mask is None else outputs.masked_fill(~mask, FORBIDDEN)
