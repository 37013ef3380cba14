"""Advantage actor-critic: Mnih et al., 2016, arXiv 1602.01783, algorithm S3, with all actors in step.

    for iteration = 1, 2, …
        for each simulation group: run π for t_max timesteps                                  (rollout workers)
        R ← V(s) of the last state, 0 if it is terminal;  for each step backwards: R ← r + γ R   (learner)
        one step of RMSprop on −log π(a|s) (R − V(s)) + c₁ (R − V(s))² − c₂ H(π)                 (learner)

Names and defaults are Stable-Baselines3's. With λ = 1 the advantages are R − V(s).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..rl import (
    Clock,
    Hyperparameters,
    Learner,
    OnPolicyAlgorithm,
    Rate,
    Rollout,
    choice,
    learning_batch,
    learning_metrics,
    normalized_advantages,
    number,
    rate_at,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..rl import ActorCritic


@dataclass(frozen=True, kw_only=True)
class A2CConfig(Hyperparameters):
    """Hyperparameters of A2C, with Stable-Baselines3's names and defaults. Raises InputError on values that cannot
    work."""

    learning_rate: Rate = number(7e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size; a number, or lin_NUMBER to let it fall linearly to 0."""
    n_steps: int = number(5, whole=True, at_least=1)
    """Steps per environment and rollout (t_max)."""
    gamma: float = number(0.99, at_least=0, at_most=1)
    """Discount per step."""
    gae_lambda: float = number(1.0, at_least=0, at_most=1)
    """λ of generalized advantages; 1 is the paper's n-step return."""
    normalize_advantage: bool = False
    """Whether the advantages of a rollout are shifted and scaled to mean 0 and standard deviation 1."""
    ent_coef: float = number(0.0)
    """Weight of the entropy bonus (c₂)."""
    vf_coef: float = number(0.5, at_least=0)
    """Weight of the value loss (c₁)."""
    max_grad_norm: float | None = number(0.5, above=0, optional=True)
    """The gradient's norm is clipped to this."""
    optimizer: str = choice("rmsprop", "rmsprop", "adam")
    """rmsprop or adam."""
    rms_prop_eps: float = number(1e-5, above=0)
    """ε of the optimizer, added outside the root."""


def a2c_loss(model: ActorCritic, batch: dict[str, Tensor], config: A2CConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimize and metrics, of one rollout: `batch` holds `rows` [B, …], `actions` [B, …], and [B] float32
    `advantages` and `returns`."""
    evaluated, advantages = model.evaluate(batch["rows"], batch["actions"]), batch["advantages"]
    return actor_critic_loss(evaluated, batch["returns"], advantages, vf_coef=config.vf_coef, ent_coef=config.ent_coef)


def actor_critic_loss(
    evaluated: tuple[Tensor, Tensor, Tensor], targets: Tensor, advantages: Tensor, *, vf_coef: float, ent_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimize and metrics. All are [B]: values, log-probabilities and entropies as `evaluated`, with
    gradients; `targets` and `advantages` without."""
    values, log_probs, entropies = evaluated
    policy_loss = -(advantages * log_probs).mean()
    value_loss = (targets - values).square().mean()
    entropy_loss = -entropies.mean()
    loss = policy_loss + vf_coef * value_loss + ent_coef * entropy_loss
    return loss, {
        "train/policy_loss": policy_loss.detach(),
        "train/value_loss": value_loss.detach(),
        "train/entropy_loss": entropy_loss.detach(),
    }


class A2C(OnPolicyAlgorithm[A2CConfig]):
    """A2C on rollout workers and one learner. Arguments as in `Algorithm`, hyperparameters as in `A2CConfig`."""

    name = "a2c"
    config_class = A2CConfig
    presets_path = Path(__file__).parent / "presets" / "a2c.toml"
    shards_gradients = True

    @staticmethod
    def prepare(learner: Learner, config: A2CConfig) -> None:
        """The optimizer."""
        make = learner.adam if config.optimizer == "adam" else learner.rmsprop
        make(epsilon=config.rms_prop_eps)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: A2CConfig, clock: Clock) -> dict[str, float]:
        """One step of the optimizer on all rows of one iteration."""
        learning_rate = rate_at(config.learning_rate, clock.remaining)
        batch = learning_batch(learner, rollout, gamma=config.gamma, gae_lambda=config.gae_lambda)
        metrics = learner.minimize(
            normalized_advantages(batch) if config.normalize_advantage else batch,
            lambda rows: a2c_loss(learner.model, rows, config),
            learning_rate=learning_rate,
            max_grad_norm=config.max_grad_norm,
        )
        learner.n_updates += 1
        own = {name: float(value) for name, value in metrics.items()}
        return own | learning_metrics(learner, batch, learning_rate)
