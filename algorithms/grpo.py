"""Group relative policy optimization: Shao et al., 2024 (arXiv 2402.03300), algorithm 1, and its relatives by switches.

    for iteration = 1, 2, …
        answer each prompt `samples` times with π_old                                                  (generators)
        A ← (reward − baseline) / scale, of the answers to a prompt among each other                   (learner)
        optimize the clipped surrogate of each token, aggregated, with a distance to π_ref             (learner)

    preset     baseline       scale  aggregation  ratio     clip_low, clip_high   truncation
    grpo       group          group  sequence     token     0.2, 0.2              count
    dr_grpo    group          none   constant     token     0.2, 0.2              count
    dapo       group          group  token        token     0.2, 0.28             mask
    rloo       leave_one_out  none   sequence     sequence  0.2, 0.2              count
    gspo       group          group  sequence     sequence  3e-4, 4e-4            count

The mathematics is in `rl/language/losses.py`. Dead groups are counted and shown; docs/language.md says why they stay.
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
    add_old_policy,
    check_weights,
    choice,
    learn_from_answers,
    log_probs_in_parts,
    log_probs_of,
    losses,
    number,
    sampled_batch,
    sampling_metrics,
    torch,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(LanguageConfig):
    """Hyperparameters of GRPO, those of `LanguageConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    baseline: str = choice("group", "group", "batch", "leave_one_out", "none")
    """What is taken off a reward: the mean of its group, of the batch, of the others in its group, or nothing."""
    scale: str = choice("group", "group", "batch", "none")
    """What it is then divided by: the deviation in its group, in the batch, or nothing."""
    aggregation: str = choice("sequence", "sequence", "token", "constant")
    """The mean of each answer's tokens, then of the answers; the mean of all tokens; or their sum / max_new_tokens."""
    gate: str = choice("none", "none", "outcome")
    """Leave out groups of the same outcome (all solved, or none), although their rewards differ; or do not."""
    ratio: str = choice("token", "token", "sequence")
    """Ratio of the policies at each token, or the geometric mean of an answer's (GSPO)."""
    clip_low: float = number(0.2, at_least=0)
    """How far the ratio may fall below 1."""
    clip_high: float = number(0.2, at_least=0)
    """How far it may rise above 1."""
    importance_cap: float | None = number(None, above=0, optional=True)
    """Instead of clipping: weights of the log-probabilities, ratios up to this, without a gradient of their own."""
    kl_penalty: str = choice("none", "none", "k1_in_reward", "k3_in_loss", "k3_corrected")
    """How the distance to the initial policy counts: not at all, in the reward, or in the loss (as GRPO's paper has it,
    or corrected: see `losses.kl_losses`)."""
    kl_coef: float = number(0.04, at_least=0)
    """What it counts (β)."""
    truncation: str = choice("count", "count", "mask", "penalise")
    """Answers that were cut off count as they are, are left out, or cost truncation_penalty."""
    truncation_penalty: float = number(1.0, at_least=0)
    """Taken off the reward of an answer that was cut off, with truncation penalise."""
    recompute: str = choice("none", "none", "same_shape")
    """Log-probabilities of π_old: those of the generators, which rounding lets differ by about 1e-6; or computed again
    by the learner in minibatches of the same shape, which are exactly those of the first minibatch."""
    behaviour_cap: float | None = number(None, above=0, optional=True)
    """π_old becomes the policy at the start of the update, computed again, and a token counts π_old / π_behaviour, up
    to this: the decoupled objective of AReaL (see `losses.behaviour_weights`). None: π_old is what sampled."""


class GRPO(LanguageAlgorithm[GRPOConfig]):
    """GRPO on generators and a learner. Arguments as in `LanguageAlgorithm`, hyperparameters as in `GRPOConfig`."""

    name = "grpo"
    config_class = GRPOConfig
    presets_path: ClassVar[Path | None] = Path(__file__).parent / "presets" / "grpo.toml"

    def check(self) -> None:
        """Raise InputError on settings that exclude each other."""
        super().check()
        config = self.config
        alone = config.samples > 1 or config.baseline in ("batch", "none")
        self.require(alone, "samples", config.samples, "at least 2: a group's answers are compared with each other")
        wanted = "none with max_lag > 0, where the learner's weights did not sample; see behaviour_cap"
        known = config.max_lag == 0 or config.behaviour_cap is not None
        self.require(known or config.recompute == "none", "recompute", config.recompute, wanted)

    @staticmethod
    def prepare(learner: Learner, config: GRPOConfig) -> None:
        """Adam, and the initial policy as reference, where the distance to it counts."""
        learner.adam()
        if config.kl_penalty != "none":
            learner.add_target()

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: GRPOConfig, clock: Clock) -> dict[str, float]:
        """Optimize the surrogate on one iteration's answers."""
        check_weights(learner, rollout, config.max_lag)
        batch = sampled_batch(learner, rollout)
        counted = add_old_policy(learner, batch, config)
        metrics, dead = add_advantages(learner, batch, config)

        def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return grpo_loss(learner.model, rows, config)

        told = learn_from_answers(learner, batch, config, clock, loss_of=loss_of, aggregation=config.aggregation)
        return told | metrics | counted | sampling_metrics(learner, rollout, dead, config.max_lag)


def add_advantages(learner: Learner, batch: dict[str, Tensor], config: GRPOConfig) -> tuple[dict[str, float], Tensor]:
    """Put into the batch each row's `advantages` [B] float32, and `reference` [B, L] where it counts; what does not
    count leaves the `mask`. Returns metrics, and which rows are in dead groups, [B] bool."""
    mask, metrics = batch["mask"], {}
    rewards, counted = losses.truncated_rewards(
        batch.pop("rewards"), batch.pop("cut"), config.truncation, config.truncation_penalty
    )
    prompts, solved = batch.pop("prompts"), batch.pop("solved")
    if config.gate == "outcome":
        counted = counted & ~losses.dead_groups(solved, prompts, counted)
    dead = losses.dead_groups(rewards, prompts, counted)
    if config.kl_penalty != "none":
        batch["reference"] = log_probs_in_parts(learner, learner.target, batch["tokens"], config)
        metrics["train/kl"] = float((batch["sampled"] - batch["reference"])[mask].mean())
    if config.kl_penalty == "k1_in_reward":
        rewards = losses.rewards_with_kl(rewards, batch["sampled"], batch["reference"], mask, config.kl_coef)
    advantages = losses.advantages_of(rewards, prompts, counted, baseline=config.baseline, scale=config.scale)
    batch["advantages"], batch["mask"] = advantages.float(), mask & counted[:, None]
    return metrics, dead


def grpo_loss(model: Any, rows: dict[str, Tensor], config: GRPOConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a minibatch's rows, and metrics."""
    mask, weights = rows["mask"], rows["weights"] * rows.get("importance", 1)
    log_probs = log_probs_of(model, rows["tokens"], config.temperature)
    token = losses.log_ratios_of(log_probs, rows["sampled"], mask, "token")
    ratios = token if config.ratio == "token" else losses.log_ratios_of(log_probs, rows["sampled"], mask, "sequence")
    if config.importance_cap is None:
        each, clipped = losses.clipped_losses(ratios, rows["advantages"], config.clip_low, config.clip_high)
    else:
        each, clipped = losses.capped_losses(ratios, log_probs, rows["advantages"], config.importance_cap)
    policy_loss = loss = losses.mean_over_rows(each, mask, weights)
    if config.kl_penalty in ("k3_in_loss", "k3_corrected"):
        distance = losses.kl_losses(log_probs, rows["reference"], token, mask, config.kl_penalty)
        loss = policy_loss + config.kl_coef * losses.mean_over_rows(distance, mask, weights)
    with torch.no_grad():
        told = {
            "train/loss": loss.detach(),
            "train/policy_gradient_loss": policy_loss.detach(),
            "train/clip_fraction": losses.masked_mean(clipped.float(), mask).mean(),
            "train/approx_kl": losses.masked_mean(token.exp() - 1 - token, mask).mean(),
            "difference": torch.where(mask, (log_probs - rows["generated"]).abs(), 0).amax(-1),
        }
    return loss, told
