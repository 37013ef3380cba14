"""Asynchronous PPO: PPO's surrogate (Schulman et al., 2017, arXiv 1707.06347, equation 7) on trajectories of older
weights, as IMPACT has it (Luo et al., 2020, arXiv 1912.00167): V-trace by a target network, batches used several times.

    rollout workers, for ever:  take the newest weights μ; run π_μ for n_steps timesteps; queue the trajectories
    learner, for ever:          take trajectories that have come, or else one of the batches kept
                                    vs, A  ← V-trace with values and probabilities of the target network θ⁻
                                one step on −min(r A, clip(r, 1 − ε, 1 + ε) A) + c₁ (vs − V(s))² − c₂ H(π),
                                    r = π(a|s) / μ(a|s)
                                every target_update_interval updates: θ⁻ ← θ;  publish the weights

The advantages are those of a policy that changes slowly, so that a batch can be used again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..rl import (
    ActorLearnerAlgorithm,
    AsynchronousConfig,
    Clock,
    Learner,
    Limits,
    Rate,
    Rollout,
    RunSettings,
    acted_batch,
    actor_learner_metrics,
    corrected,
    normalized_advantages,
    number,
    rate_at,
    torch,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class APPOConfig(AsynchronousConfig):
    """Hyperparameters of APPO, those of `AsynchronousConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(5e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    gamma: float = number(0.99, at_least=0, at_most=1)
    """Discount per step."""
    vtrace_lambda: float = number(1.0, at_least=0, at_most=1)
    """λ of V-trace: how much later steps count."""
    clip_range: Rate = number(0.2, rate=True, above=0)  # noqa: RUF009
    """How far the probability ratio may go from 1 before its gradient is cut (ε)."""
    normalize_advantage: bool = True
    """Whether the advantages of a batch are shifted and scaled to mean 0 and standard deviation 1."""
    target_update_interval: int = number(2, whole=True, at_least=1)
    """Updates between two copies of the weights into the target network."""
    replay_batches: int = number(4, whole=True, at_least=1)
    """Batches that are kept to be used again; the oldest gives way."""
    replay_uses: int = number(2, whole=True, at_least=1)
    """Updates that may use a batch. One that has been used before is taken where no new one has come."""
    ent_coef: float = number(0.01)
    """Weight of the entropy bonus (c₂)."""
    vf_coef: float = number(0.5, at_least=0)
    """Weight of the value loss (c₁)."""
    max_grad_norm: float | None = number(40.0, above=0, optional=True)
    """The gradient's norm is clipped to this."""

    def limits(self, settings: RunSettings) -> Limits:
        """With batches that are used again."""
        return replace(super().limits(settings), uses=self.replay_uses, batches=self.replay_batches)


def appo_loss(
    evaluated: tuple[Tensor, Tensor, Tensor], batch: dict[str, Tensor], config: APPOConfig, clip_range: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimize, and what it tells. All are [B]: values, log-probabilities and entropies as `evaluated`, with
    gradients; of `batch` `log_probs` of the weights that acted, `targets` and `advantages`, without."""
    values, log_probs, entropies = evaluated
    advantages = batch["advantages"]
    ratio = (log_probs - batch["log_probs"]).exp()
    clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -(advantages * ratio).minimum(advantages * clipped_ratio).mean()
    value_loss = (batch["targets"] - values).square().mean()
    entropy_loss = -entropies.mean()
    loss = policy_loss + config.vf_coef * value_loss + config.ent_coef * entropy_loss
    return loss, {
        "train/policy_gradient_loss": policy_loss.detach(),
        "train/value_loss": value_loss.detach(),
        "train/entropy_loss": entropy_loss.detach(),
        "train/clip_fraction": (ratio != clipped_ratio).float().mean(),
        "train/ratio_mean": ratio.detach().mean(),
        "values": values.detach(),
        "targets": batch["targets"],
    }


class APPO(ActorLearnerAlgorithm[APPOConfig]):
    """APPO on rollout workers and learners. Arguments as in `Algorithm`, hyperparameters as in `APPOConfig`."""

    name = "appo"
    config_class = APPOConfig
    presets_path = Path(__file__).parent / "presets" / "appo.toml"

    @staticmethod
    def prepare(learner: Learner, config: APPOConfig) -> None:
        """Adam, and the target network θ⁻."""
        learner.adam(epsilon=1e-5)
        learner.add_target()

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: APPOConfig, clock: Clock) -> dict[str, float]:
        """One step of Adam on one batch; then the target network, when its time has come."""
        learning_rate = rate_at(config.learning_rate, clock.remaining)
        clip_range = rate_at(config.clip_range, clock.remaining)
        batch = acted_batch(learner, rollout)
        with torch.no_grad():
            old_values, old_log_probs, _ = learner.target.evaluate(batch["rows"], batch["actions"])
        batch |= corrected(
            learner,
            rollout,
            batch,
            values=old_values,
            log_probs=old_log_probs,
            critic=learner.target,
            gamma=config.gamma,
            rho_bar=1.0,
            c_bar=1.0,
            lambda_=config.vtrace_lambda,
        )
        told = learner.minimize(
            normalized_advantages(batch) if config.normalize_advantage else batch,
            lambda rows: appo_loss(learner.model.evaluate(rows["rows"], rows["actions"]), rows, config, clip_range),
            learning_rate=learning_rate,
            max_grad_norm=config.max_grad_norm,
        )
        learner.n_updates += 1
        if learner.n_updates % config.target_update_interval == 0:
            learner.update_target()
        rates = {"train/learning_rate": learning_rate, "train/clip_range": clip_range}
        return rates | actor_learner_metrics(learner, rollout, told, max_lag=config.max_lag)
