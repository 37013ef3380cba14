"""An actor and critics of its actions: the models of SAC and TD3.

    rows [B, inputs] ─── actor ──▶ what actions are chosen by
    rows, actions    ─── critics ─▶ Q_1, Q_2 … [n_critics, B]        (with discrete actions: [n_critics, B, actions])

The actor has an encoder of its own, the critics share another one. Continuous actions lie in [−1, 1] here, whatever
the bounds of the space: what the critics see and what the entropy is taken of does not depend on the units of the
environment.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from ..data.tree import tree_map
from .distributions import LOG_STD_MAX, LOG_STD_MIN, Categorical, SquashedGaussian, draw_noise, forbid
from .encoders import make_encoder
from .model import MLP, Model
from .plain_q import PlainDeterministicActorQ, PlainGaussianActorQ
from .rows import Parts, Rows
from .spec import ModelSpec


class ActorQ(Model):
    """`policy_kwargs` are fields of `ActorQArchitecture`."""

    acting = ("actor",)

    def __init__(self, spec: ModelSpec, *, outputs_per_action: int = 1, critics_see_actions: bool = True) -> None:
        super().__init__(spec)
        chosen, actions = spec.architecture, self.actions.row_size
        pi, qf = chosen.net_arch
        self.actor_encoder = make_encoder(spec, chosen)
        features = self.width(self.actor_encoder)
        self.actor = MLP(features, pi, outputs_per_action * actions, chosen.activation)
        self.critics_encoder = make_encoder(spec, chosen)
        inputs, outputs = (features + actions, 1) if critics_see_actions else (features, actions)
        self.critics = nn.ModuleList(MLP(inputs, qf, outputs, chosen.activation) for _ in range(chosen.n_critics))

    def outputs(self, rows: Rows) -> Tensor:
        """The actor's."""
        features, mask = self.encoded(rows, self.actor_encoder)
        return forbid(self.actor(features), mask)

    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """Standard normal for continuous actions, Gumbel for discrete ones."""
        return draw_noise(self.actions, generator, rows)


class ContinuousActorQ(ActorQ):
    """Continuous actions in [−1, 1], whatever the bounds of the space."""

    def values(self, rows: Rows, actions: Tensor) -> Tensor:
        """Q of actions [B, K] in [−1, 1] by each critic, [n_critics, B]."""
        both = self._both(rows, actions)
        return torch.stack([critic(both).squeeze(-1) for critic in self.critics])

    def first_value(self, rows: Rows, actions: Tensor) -> Tensor:
        """Q_1 [B], by the first critic alone."""
        return self.critics[0](self._both(rows, actions)).squeeze(-1)

    @property
    def is_plain(self) -> bool:
        """Whether actor and critics are all that there is between vectors and actions."""
        return self.actor_encoder is None and self.critics_encoder is None and self.flat.is_cpu

    def _both(self, rows: Rows, actions: Tensor) -> Tensor:
        return torch.cat([self.encoded(rows, self.critics_encoder)[0], actions], -1)

    def environment_actions(self, actions: np.ndarray) -> np.ndarray:
        """[−1, 1] as the space between its bounds."""
        low, high = self._bounds
        return super().environment_actions(low + (actions + 1) * (high - low) / 2)

    def environment_tensors(self, actions: Tensor) -> Tensor:
        """[−1, 1] as the space between its bounds."""
        low, high = map(torch.from_numpy, self._bounds)
        return super().environment_tensors(low + (actions + 1) * (high - low) / 2)

    def own_actions(self, actions: np.ndarray) -> np.ndarray:
        """The space between its bounds as [−1, 1]; what lies outside as the nearest bound."""
        low, high = self._bounds
        flat = actions.reshape(len(actions), -1).astype(np.float64)
        return (2 * (flat - low) / (high - low) - 1).clip(-1, 1).astype(np.float32)

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        space = self.spec.action_space
        low, high = (np.ravel(bound).astype(np.float64) for bound in (space.low, space.high))  # type: ignore[attr-defined]
        return low, high

    @staticmethod
    def repeat(rows: Tensor | Parts, times: int) -> Rows:
        """Each of encoded rows [B, …] so often, side by side: [B · times, …]."""
        return tree_map(lambda leaf: leaf.repeat_interleave(times, 0), rows)

    @staticmethod
    def uniform(rows: Rows, noise: Tensor) -> Tensor:
        """Uniform actions in [−1, 1] from standard normal noise: 2 Φ(noise) − 1."""
        return torch.erf(noise / 2**0.5)


class GaussianActorQ(ContinuousActorQ):
    """SAC's: a squashed Gaussian, whose mean and log σ depend on the state."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, outputs_per_action=2)
        self.log_alpha = nn.Parameter(torch.zeros(()))

    @cached_property
    def plain(self) -> PlainGaussianActorQ | None:
        """The same networks in numpy, where they are plain; else None."""
        return PlainGaussianActorQ(self) if self.is_plain and type(self) is GaussianActorQ else None

    def distribution(self, outputs: Tensor) -> SquashedGaussian:
        """The distribution that the actor's outputs [B, 2 K] describe: means, then log σ."""
        mean, log_std = outputs.chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX))

    def expectations(self, critics: ContinuousActorQ, rows: Rows, noise: Tensor) -> tuple[Tensor, Tensor]:
        """E[min_i Q_i] by `critics` and E[log π] [B] under the policy in `rows`, estimated by one action of each, that
        is drawn with `noise`; with gradients to the actor."""
        actions, log_prob = self.distribution(self.outputs(rows)).sample_with_log_prob(noise)
        return critics.values(rows, actions).amin(0), log_prob

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """tanh of the mean, or drawn actions."""
        distribution = self.distribution(outputs)
        return distribution.mode() if noise is None else distribution.sample(noise)


class CategoricalActorQ(ActorQ):
    """Discrete SAC's: the critics value each action."""

    plain = None

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, critics_see_actions=False)
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def values(self, rows: Rows, actions: Tensor | None = None) -> Tensor:
        """Q of actions [B] by each critic, [n_critics, B]; without, of all actions, [n_critics, B, actions]."""
        features, _ = self.encoded(rows, self.critics_encoder)
        of_all = torch.stack([critic(features) for critic in self.critics])
        if actions is None:
            return of_all
        return of_all.gather(-1, actions.expand(len(self.critics), -1).unsqueeze(-1)).squeeze(-1)

    def expectations(self, critics: CategoricalActorQ, rows: Rows, noise: Tensor) -> tuple[Tensor, Tensor]:
        """E[min_i Q_i] by `critics` and E[log π] [B] under the policy in `rows`: sums over the actions, with gradients
        to the actor."""
        log_probs = self.outputs(rows).log_softmax(-1)
        probabilities = log_probs.exp()
        return (probabilities * critics.values(rows).amin(0)).sum(-1), (probabilities * log_probs).sum(-1)

    def allowed(self, rows: Rows) -> Tensor:
        """How many actions may be chosen, float32: in each of the rows, [B], where there is a mask; else one number."""
        mask = self.mask(rows)
        return torch.tensor(float(self.actions.row_size)) if mask is None else mask.float().sum(-1)

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """The most probable actions, or drawn ones."""
        distribution = Categorical(outputs)
        return distribution.mode() if noise is None else distribution.sample(noise)

    def uniform(self, rows: Rows, noise: Tensor) -> Tensor:
        """Uniform actions, of those allowed, from Gumbel noise."""
        return forbid(noise, self.mask(rows)).argmax(-1)


class DeterministicActorQ(ContinuousActorQ):
    """TD3's: one action, tanh of the actor's output."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, outputs_per_action=1)

    @cached_property
    def plain(self) -> PlainDeterministicActorQ | None:
        """The same networks in numpy, where they are plain; else None."""
        return PlainDeterministicActorQ(self) if self.is_plain and type(self) is DeterministicActorQ else None

    def choose(self, outputs: Tensor, noise: Tensor | None, scale: float = 0.0) -> Tensor:
        """The action; with noise, `scale` times that is added, within [−1, 1]."""
        actions = outputs.tanh()
        return actions if noise is None or not scale else (actions + scale * noise).clamp(-1, 1)
