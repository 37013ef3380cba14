"""PPO on texts, with a value head: Schulman et al., 2017 (arXiv 1707.06347), each token an action; Ziegler et al., 2019
(arXiv 1909.08593), and Ouyang et al., 2022 (2203.02155), section 3.5.

    for iteration = 1, 2, …
        answer prompts with π_old                                                          (generators)
        r_t ← −β (log π_old − log π_ref), and the episode's reward at its last token       (learner)
        Â_t ← Σ_k (γλ)^k (r_t+k + γ V_t+k+1 − V_t+k) over the model's own tokens           (learner)
        optimize the clipped surrogate and the value loss                                  (learner)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..rl import (
    Clock,
    LanguageAlgorithm,
    LanguageConfig,
    Learner,
    Rollout,
    check_weights,
    explained_variance,
    learn_from_answers,
    log_probs_in_parts,
    losses,
    number,
    sampled_batch,
    sampling_metrics,
    torch,
    values_in_parts,
    values_of,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenPPOConfig(LanguageConfig):
    """Hyperparameters of PPO on tokens, those of `LanguageConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    samples: int = number(1, whole=True, at_least=1)
    """Answers to each prompt; the value head, not the others, says what is expected of one."""
    n_epochs: int = number(4, whole=True, at_least=1)
    """Passes over each iteration's answers."""
    gamma: float = number(1.0, at_least=0, at_most=1)
    """Discount per token of the model's own."""
    gae_lambda: float = number(1.0, at_least=0, at_most=1)
    """λ of generalized advantages: 0 trusts the value head, 1 the returns."""
    clip_range: float = number(0.2, above=0)
    """How far the probability ratio may go from 1 before its gradient is cut (ε)."""
    clip_range_vf: float | None = number(None, above=0, optional=True)
    """How far a value may go from its old one before its gradient is cut; none: no limit."""
    normalize_advantage: bool = True
    """Whether the advantages of all tokens are shifted and scaled to mean 0 and standard deviation 1."""
    ent_coef: float = number(0.0)
    """Weight of the entropy bonus (c₂)."""
    vf_coef: float = number(0.5, at_least=0)
    """Weight of the value loss (c₁)."""
    kl_coef: float = number(0.0, at_least=0)
    """What the distance to the initial policy costs at each token (β)."""


class TokenPPO(LanguageAlgorithm[TokenPPOConfig]):
    """PPO with a value head over tokens. Arguments as in `LanguageAlgorithm`, hyperparameters as in
    `TokenPPOConfig`."""

    name = "token_ppo"
    config_class = TokenPPOConfig
    presets_path: ClassVar[Path | None] = Path(__file__).parent / "presets" / "token_ppo.toml"

    @staticmethod
    def model_options(config: TokenPPOConfig) -> dict[str, Any]:
        """A value head."""
        return {"value_head": True}

    @staticmethod
    def prepare(learner: Learner, config: TokenPPOConfig) -> None:
        """Adam, and the initial policy as reference, where the distance to it counts."""
        learner.adam()
        if config.kl_coef:
            learner.add_target()

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: TokenPPOConfig, clock: Clock) -> dict[str, float]:
        """Optimize the surrogate on one iteration's answers."""
        check_weights(learner, rollout, config.max_lag)
        batch = sampled_batch(learner, rollout)
        metrics = add_advantages(learner, batch, config)

        def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return token_ppo_loss(learner.model, rows, config)

        told = learn_from_answers(learner, batch, config, clock, loss_of=loss_of, aggregation="token")
        return told | metrics | sampling_metrics(learner, rollout, None, config.max_lag)


def add_advantages(learner: Learner, batch: dict[str, Tensor], config: TokenPPOConfig) -> dict[str, float]:
    """Put `values`, `returns` and `advantages` [B, L] of π_old into the batch, and return metrics."""
    mask, metrics = batch["mask"], {}
    for name in ("cut", "solved", "prompts"):
        del batch[name]
    rewards = torch.where(losses.last_of(mask), batch.pop("rewards")[:, None].float(), 0)
    if config.kl_coef:
        reference = log_probs_in_parts(learner, learner.target, batch["tokens"], config)
        distance = torch.where(mask, batch["sampled"] - reference, 0)
        metrics["train/kl"] = float(distance[mask].mean())
        rewards = rewards - config.kl_coef * distance
    values = torch.where(mask, values_in_parts(learner, batch["tokens"], config), 0)
    advantages, returns = losses.token_advantages(rewards, values, mask, config.gamma, config.gae_lambda)
    metrics["train/explained_variance"] = explained_variance(values[mask].cpu().numpy(), returns[mask].cpu().numpy())
    batch["advantages"] = losses.whitened(advantages, mask) if config.normalize_advantage else advantages
    batch["values"], batch["returns"] = values, returns
    return metrics


def token_ppo_loss(model: Any, rows: dict[str, Tensor], config: TokenPPOConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a minibatch's rows (equation 9 with the sign turned), and metrics."""
    mask, weights = rows["mask"], rows["weights"]
    logits, predicted = model.evaluate(rows["tokens"])
    log_probs, values = losses.log_probs_of(logits, rows["tokens"], config.temperature), values_of(predicted)
    ratios = losses.log_ratios_of(log_probs, rows["sampled"], mask, "token")
    each, clipped = losses.clipped_losses(ratios, rows["advantages"], config.clip_range, config.clip_range)
    if config.clip_range_vf is not None:
        moved = (values - rows["values"]).clamp(-config.clip_range_vf, config.clip_range_vf)
        values = rows["values"] + moved
    policy_loss = losses.mean_over_rows(each, mask, weights)
    value_loss = losses.mean_over_rows((rows["returns"] - values).square(), mask, weights)
    loss = policy_loss + config.vf_coef * value_loss
    if config.ent_coef:
        entropies = losses.entropies_of(logits, config.temperature)
        loss = loss - config.ent_coef * losses.mean_over_rows(entropies, mask, weights)
    with torch.no_grad():
        told = {
            "train/loss": loss.detach(),
            "train/policy_gradient_loss": policy_loss.detach(),
            "train/value_loss": value_loss.detach(),
            "train/clip_fraction": losses.masked_mean(clipped.float(), mask).mean(),
            "train/approx_kl": losses.masked_mean(ratios.exp() - 1 - ratios, mask).mean(),
            "difference": torch.where(mask, (log_probs - rows["sampled"]).abs(), 0).amax(-1),
        }
    return loss, told
