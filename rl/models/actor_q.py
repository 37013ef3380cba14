"""An actor and critics of its actions: the models of SAC and TD3.

    rows [B, inputs] ─── actor ──▶ what actions are chosen by
    rows, actions    ─── critics ─▶ Q_1, Q_2 … [n_critics, B]        (with discrete actions: [n_critics, B, actions])

Continuous actions lie in [−1, 1] here, whatever the bounds of the space: what the critics see and what the entropy is
taken of does not depend on the units of the environment.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .architecture import row_size
from .distributions import Categorical, SquashedGaussian, draw_noise
from .model import MLP, Model
from .spec import ModelSpec

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""Hard limits of log σ, as in the authors' code and Stable-Baselines3."""


class ActorQ(Model):
    """`policy_kwargs` are fields of `ActorQArchitecture`."""

    acting = ("actor",)

    def __init__(self, spec: ModelSpec, actor_outputs: int, critic_inputs: int, critic_outputs: int) -> None:
        super().__init__(spec)
        chosen = spec.architecture
        pi, qf = chosen.net_arch
        self.actor = MLP(self.inputs, pi, actor_outputs, chosen.activation)
        self.critics = nn.ModuleList(
            MLP(critic_inputs, qf, critic_outputs, chosen.activation) for _ in range(chosen.n_critics)
        )

    def outputs(self, rows: Tensor) -> Tensor:
        """The actor's."""
        return self.actor(rows)

    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """Standard normal for continuous actions, Gumbel for discrete ones."""
        return draw_noise(self.spec.action_space, generator, rows)


class _Continuous(ActorQ):
    def __init__(self, spec: ModelSpec, outputs_per_action: int) -> None:
        self.actions = row_size(spec.action_space)
        inputs = row_size(spec.observation_space) + self.actions
        super().__init__(spec, outputs_per_action * self.actions, inputs, 1)

    def values(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Q of actions [B, K] in [−1, 1] by each critic, [n_critics, B]."""
        both = torch.cat([rows, actions], -1)
        return torch.stack([critic(both).squeeze(-1) for critic in self.critics])

    def first_value(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Q_1 [B], by the first critic alone."""
        return self.critics[0](torch.cat([rows, actions], -1)).squeeze(-1)

    def environment_actions(self, actions: np.ndarray) -> np.ndarray:
        """[−1, 1] as the space between its bounds."""
        space = self.spec.action_space
        low, high = (np.ravel(bound).astype(np.float64) for bound in (space.low, space.high))  # type: ignore[attr-defined]
        return super().environment_actions(low + (actions + 1) * (high - low) / 2)

    @staticmethod
    def uniform(noise: Tensor) -> Tensor:
        """Uniform actions in [−1, 1] from standard normal noise: 2 Φ(noise) − 1."""
        return torch.erf(noise / 2**0.5)


class GaussianActorQ(_Continuous):
    """SAC's: a squashed Gaussian, whose mean and log σ depend on the state."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, outputs_per_action=2)
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def distribution(self, outputs: Tensor) -> SquashedGaussian:
        """The distribution that the actor's outputs [B, 2 K] describe: means, then log σ."""
        mean, log_std = outputs.chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX))

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """tanh of the mean, or drawn actions."""
        distribution = self.distribution(outputs)
        return distribution.mode() if noise is None else distribution.sample(noise)


class CategoricalActorQ(ActorQ):
    """Discrete SAC's: the critics value each action."""

    def __init__(self, spec: ModelSpec) -> None:
        self.actions = row_size(spec.action_space)
        super().__init__(spec, self.actions, row_size(spec.observation_space), self.actions)
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def values(self, rows: Tensor) -> Tensor:
        """Q of all actions by each critic, [n_critics, B, actions]."""
        return torch.stack([critic(rows) for critic in self.critics])

    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """The most probable actions, or drawn ones."""
        distribution = Categorical(outputs)
        return distribution.mode() if noise is None else distribution.sample(noise)

    @staticmethod
    def uniform(noise: Tensor) -> Tensor:
        """Uniform actions from Gumbel noise."""
        return noise.argmax(-1)


class DeterministicActorQ(_Continuous):
    """TD3's: one action, tanh of the actor's output."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, outputs_per_action=1)

    def choose(self, outputs: Tensor, noise: Tensor | None, scale: float = 0.0) -> Tensor:
        """The action; with noise, `scale` times that is added, within [−1, 1]."""
        actions = outputs.tanh()
        return actions if noise is None or not scale else (actions + scale * noise).clamp(-1, 1)
