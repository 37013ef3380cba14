"""Quantile regression DQN: Dabney et al., 2018, arXiv 1710.10044, algorithm 1. It is DQN with another output: of each
action N quantiles of the return, θ_1(s, a) … θ_N(s, a), whose mean is Q(s, a).

    Require N, κ; input s, a, r, s', discount
        a* ← argmax_a' Q(s', a'; θ⁻)
        Tθ_j ← r + discount · θ⁻_j(s', a*)  for each j
        descend on Σ_i mean_j ρ^κ_τ̂i(Tθ_j − θ_i(s, a)),  τ̂_i = (i − ½) / N

The switches of DQN are there, too. Names and defaults are sb3-contrib's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..rl import Clock, Learner, Rate, Rollout, number, torch
from .dqn import DQN, DQNConfig, learn

if TYPE_CHECKING:
    from torch import Tensor

    from ..rl import QuantileQNetwork

KAPPA = 1.0
"""κ: errors below it count by their square, larger ones by their size."""


@dataclass(frozen=True, kw_only=True)
class QRDQNConfig(DQNConfig):
    """Hyperparameters of QR-DQN, with sb3-contrib's names and defaults; the number of quantiles is the entry
    `n_quantiles` of `policy_kwargs`.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(5e-5, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    exploration_fraction: float = number(0.005, at_least=0, at_most=1)
    """Part of the training over which ε falls from exploration_initial_eps to exploration_final_eps."""
    exploration_final_eps: float = number(0.01, at_least=0, at_most=1)
    """ε after that."""
    max_grad_norm: float | None = number(None, above=0, optional=True)
    """The gradient's norm is clipped to this; none: not."""


def quantile_huber(predictions: Tensor, targets: Tensor) -> Tensor:
    """Losses [B] of N predicted quantiles [B, N] against M samples [B, M] of what they should describe (equation 10).

    u = target_j − prediction_i,   ρ = |τ̂_i − 1{u < 0}| · L_κ(u) / κ;   summed over i, mean over j
    """
    count = predictions.shape[-1]
    midpoints = ((torch.arange(count, dtype=torch.float32, device=predictions.device) + 0.5) / count).unsqueeze(-1)
    errors = targets.unsqueeze(-2) - predictions.unsqueeze(-1)  # [B, N, M]
    weights = torch.where(errors.detach() < 0, 1 - midpoints, midpoints)
    huber = torch.nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=KAPPA) / KAPPA
    return (weights * huber).mean(-1).sum(-1)


def qrdqn_loss(
    model: QuantileQNetwork, target: QuantileQNetwork, minibatch: dict[str, Tensor], config: QRDQNConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantile Huber loss, weighted by importance; temporal-difference errors [B] of the means; and values [B] of the
    actions taken."""
    rows, next_rows = minibatch["observations"], minibatch["next_observations"]
    predictions = of_actions(model.quantiles(rows), minibatch["actions"])
    with torch.no_grad():
        next_quantiles = target.quantiles(next_rows)
        chooser = model.outputs(next_rows) if config.double_q else target.means(next_quantiles, next_rows)
        following = of_actions(next_quantiles, chooser.argmax(-1))
        targets = minibatch["rewards"].unsqueeze(-1) + minibatch["discounts"].unsqueeze(-1) * following
    losses = quantile_huber(predictions, targets)
    q = predictions.detach().mean(-1)
    return (minibatch["weights"] * losses).mean(), targets.mean(-1) - q, q


def of_actions(quantiles: Tensor, actions: Tensor) -> Tensor:
    """[B, N]: of quantiles [B, actions, N] those of the actions [B]."""
    return quantiles[torch.arange(len(actions), device=actions.device), actions]


class QRDQN(DQN):
    """QR-DQN on rollout workers and one learner. Arguments as in `Algorithm`, hyperparameters as in `QRDQNConfig`."""

    name = "qrdqn"
    config_class = QRDQNConfig
    models = ("quantile_q_network",)
    presets_path: ClassVar[Path | None] = Path(__file__).parent / "presets" / "qrdqn.toml"

    @staticmethod
    def prepare(learner: Learner, config: DQNConfig) -> None:
        """As DQN's, but Adam has the paper's ε, 0.01 / 32 for its minibatches of 32."""
        DQN.prepare(learner, config)
        learner.adam(epsilon=0.01 / config.batch_size)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: DQNConfig, clock: Clock) -> dict[str, float]:
        """As DQN's, with the loss of quantiles."""
        return learn(learner, rollout, config, clock, qrdqn_loss)
