"""Proximal policy optimization: algorithm 1 of Schulman et al., 2017 (arXiv 1707.06347), its surrogate equation 7.

    for iteration = 1, 2, …
        for each simulation group: run policy π_old for T timesteps                          (rollout workers)
            and compute generalized advantages Â_1 … Â_T                                     (learner)
        optimize surrogate L wrt θ, with K epochs and minibatch size M ≤ N·T; θ_old ← θ      (learner)

Names, defaults and details of the loss are Stable-Baselines3's.
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
    clipped_surrogate,
    learning_batch,
    learning_metrics,
    minibatch_metrics,
    normalized_advantages,
    number,
    rate_at,
    shared_by_environments,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..rl import ActorCritic, KnownLoss


@dataclass(frozen=True, kw_only=True)
class PPOConfig(Hyperparameters):
    """Hyperparameters of PPO, with Stable-Baselines3's names and defaults.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(3e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    n_steps: int = number(shared_by_environments(2048), whole=True, at_least=1)
    """Steps per environment and rollout (T in the paper); of all n_envs together, a rollout has 2,048 by default."""
    batch_size: int = number(64, whole=True, at_least=1)
    """Rows per minibatch (M); at most n_envs · n_steps."""
    n_epochs: int = number(10, whole=True, at_least=1)
    """Passes over each rollout (K)."""
    gamma: float = number(0.99, at_least=0, at_most=1)
    """Discount per step."""
    gae_lambda: float = number(0.95, at_least=0, at_most=1)
    """λ of generalized advantages: 0 trusts the value function, 1 the returns."""
    clip_range: Rate = number(0.2, rate=True, above=0)  # noqa: RUF009
    """How far the probability ratio may go from 1 before its gradient is cut (ε)."""
    clip_range_vf: Rate | None = number(None, rate=True, above=0, optional=True)  # noqa: RUF009
    """How far a value may go from its old one before its gradient is cut; none: no limit."""
    normalize_advantage: bool = True
    """Whether the advantages of a minibatch are shifted and scaled to mean 0 and standard deviation 1."""
    ent_coef: float = number(0.0)
    """Weight of the entropy bonus (c₂)."""
    vf_coef: float = number(0.5, at_least=0)
    """Weight of the value loss (c₁)."""
    max_grad_norm: float | None = number(0.5, above=0, optional=True)
    """The gradient's norm is clipped to this."""
    centralized_critic: str = choice("none", "none", "observations", "state")
    """What the value function of one of several agents sees beside its agent's observations, while the policy sees
    those alone (MAPPO): none; observations, all agents'; or state, what the environment's own state() gives."""
    target_kl: float | None = number(None, above=0, optional=True)
    """An update ends once the policy is 1.5 times this far from the old one (approximate KL, nats); none: no limit."""


def ppo_loss(
    model: ActorCritic, minibatch: dict[str, Tensor], config: PPOConfig, clip_range: float, clip_range_vf: float | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimize (equation 9 with the sign turned) and metrics, both means over the rows of one minibatch.

    `minibatch`: `rows` [M, …], `actions` [M, …]; of π_old `log_probs`, `values`, `advantages`, `returns`, [M] float32.
    """
    values, log_probs, entropies = model.evaluate(minibatch["rows"], minibatch["actions"])
    advantages = minibatch["advantages"]
    log_ratio = log_probs - minibatch["log_probs"]
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -(advantages * ratio).minimum(advantages * clipped_ratio).mean()

    if clip_range_vf is not None:
        old_values = minibatch["values"]
        values = old_values + (values - old_values).clamp(-clip_range_vf, clip_range_vf)
    value_loss = (minibatch["returns"] - values).square().mean()

    entropy_loss = -entropies.mean()
    loss = policy_loss + config.vf_coef * value_loss
    if config.ent_coef:
        loss = loss + config.ent_coef * entropy_loss

    detached_ratio, detached_log_ratio = ratio.detach(), log_ratio.detach()
    return loss, {
        "train/loss": loss.detach(),
        "train/policy_gradient_loss": policy_loss.detach(),
        "train/value_loss": value_loss.detach(),
        "train/entropy_loss": entropy_loss.detach(),
        "train/approx_kl": (detached_ratio - 1 - detached_log_ratio).mean(),
        "train/clip_fraction": (detached_ratio != clipped_ratio.detach()).float().mean(),
    }


class PPO(OnPolicyAlgorithm[PPOConfig]):
    """PPO on rollout workers and one learner. Arguments as in `Algorithm`, hyperparameters as in `PPOConfig`."""

    name = "ppo"
    config_class = PPOConfig
    presets_path = Path(__file__).parent / "presets" / "ppo.toml"
    shards_gradients = True

    def check(self) -> None:
        """Raise InputError if a minibatch is larger than a rollout."""
        rows = self.run.n_envs * self.config.n_steps
        size = self.config.batch_size
        self.require(size <= rows, "batch_size", size, f"at most n_envs · n_steps = {rows}")

    @staticmethod
    def prepare(learner: Learner, config: PPOConfig) -> None:
        """Adam, with Stable-Baselines3's ε."""
        learner.adam(epsilon=1e-5)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: PPOConfig, clock: Clock) -> dict[str, float]:
        """Optimize the surrogate on one iteration's rollout."""
        learning_rate = rate_at(config.learning_rate, clock.remaining)
        clip_range = rate_at(config.clip_range, clock.remaining)
        clip_range_vf = None if config.clip_range_vf is None else rate_at(config.clip_range_vf, clock.remaining)
        plain = learner.plain  # takes a third of the time
        batch = learning_batch(learner, rollout, gamma=config.gamma, gae_lambda=config.gae_lambda, plain=plain)
        seen = {name: column for name, column in batch.items() if name != "values" or clip_range_vf is not None}
        coefficients = {"vf_coef": config.vf_coef, "ent_coef": config.ent_coef}

        def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor | KnownLoss, dict[str, Tensor]]:
            if plain is None:
                return ppo_loss(learner.model, rows, config, clip_range, clip_range_vf)
            return clipped_surrogate(plain, rows, clip_range=clip_range, clip_range_vf=clip_range_vf, **coefficients)

        history: list[dict[str, Tensor]] = []
        for epoch in range(config.n_epochs):
            epoch_start, far = len(history), False
            for drawn in learner.minibatches(seen, config.batch_size, epoch):
                minibatch = normalized_advantages(drawn) if config.normalize_advantage else drawn
                metrics = learner.differentiate(minibatch, loss_of)
                history.append(metrics)
                far = config.target_kl is not None and float(metrics["train/approx_kl"]) > 1.5 * config.target_kl
                if far:
                    break
                learner.optimizers["model"].step(learning_rate=learning_rate, max_grad_norm=config.max_grad_norm)
            learner.n_updates += 1
            if far:
                break
        rates = {"train/clip_range": clip_range, "train/clip_range_vf": clip_range_vf}
        told = {name: rate for name, rate in rates.items() if rate is not None}
        return minibatch_metrics(history, epoch_start) | told | learning_metrics(learner, batch, learning_rate)
