"""IMPALA: Espeholt et al., 2018, arXiv 1802.01561, its loss section 4.2, V-trace equations 1 and 4.

    rollout workers, for ever:  take the newest weights μ; run π_μ for n_steps timesteps; queue the trajectories
    learner, for ever:          take trajectories that have come; V-trace targets vs and advantages
                                    A_t = ρ_t (r_t + γ vs_{t+1} − V(s_t)),   ρ_t = min(ρ̄, π(a|s) / μ(a|s))
                                one step on −log π(a|s) A_t + c₁ (vs_t − V(s_t))² − c₂ H(π)
                                publish the weights

Neither waits for the other. The losses are means over steps, where the paper has sums: with trajectories of the weights
that learn, the numbers are A2C's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..rl import (
    ActorLearnerAlgorithm,
    AsynchronousConfig,
    Clock,
    Learner,
    Rate,
    Rollout,
    acted_batch,
    actor_learner_metrics,
    choice,
    corrected,
    number,
    rate_at,
    torch,
)
from .a2c import actor_critic_loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class IMPALAConfig(AsynchronousConfig):
    """Hyperparameters of IMPALA, those of `AsynchronousConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(5e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size; a number, or lin_NUMBER to let it fall linearly to 0."""
    gamma: float = number(0.99, at_least=0, at_most=1)
    """Discount per step."""
    vtrace_lambda: float = number(1.0, at_least=0, at_most=1)
    """λ of V-trace (remark 2): how much later steps count."""
    rho_bar: float = number(1.0, above=0)
    """Largest importance weight of an error (ρ̄): decides what the values converge to."""
    c_bar: float = number(1.0, above=0)
    """Largest importance weight of a trace (c̄): decides how fast; at most rho_bar."""
    ent_coef: float = number(0.01)
    """Weight of the entropy bonus (c₂)."""
    vf_coef: float = number(0.5, at_least=0)
    """Weight of the value loss (c₁)."""
    max_grad_norm: float | None = number(40.0, above=0, optional=True)
    """The gradient's norm is clipped to this."""
    optimizer: str = choice("adam", "adam", "rmsprop")
    """adam or rmsprop."""
    rms_prop_eps: float = number(1e-5, above=0)
    """ε of the optimizer, added outside the root."""


def impala_loss(
    evaluated: tuple[Tensor, Tensor, Tensor], rows: dict[str, Tensor], config: IMPALAConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimize, and what it tells. All are [B]: values, log-probabilities and entropies as `evaluated`, with
    gradients; of `rows` `log_probs` of the weights that acted, `targets` and `advantages`, without."""
    values, log_probs, _ = evaluated
    loss, metrics = actor_critic_loss(
        evaluated, rows["targets"], rows["advantages"], vf_coef=config.vf_coef, ent_coef=config.ent_coef
    )
    ratio = (log_probs.detach() - rows["log_probs"]).exp()
    told = {"train/ratio_mean": ratio.mean(), "values": values.detach(), "targets": rows["targets"]}
    return loss, metrics | told


class IMPALA(ActorLearnerAlgorithm[IMPALAConfig]):
    """IMPALA on rollout workers and learners. Arguments as in `Algorithm`, hyperparameters as in `IMPALAConfig`."""

    name = "impala"
    config_class = IMPALAConfig
    presets_path = Path(__file__).parent / "presets" / "impala.toml"

    def check(self) -> None:
        """Raise InputError if traces could weigh more than errors."""
        super().check()
        rho_bar, c_bar = self.config.rho_bar, self.config.c_bar
        self.require(c_bar <= rho_bar, "c_bar", c_bar, f"at most rho_bar = {rho_bar:g}")

    @staticmethod
    def prepare(learner: Learner, config: IMPALAConfig) -> None:
        """The optimizer."""
        make = learner.adam if config.optimizer == "adam" else learner.rmsprop
        make(epsilon=config.rms_prop_eps)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: IMPALAConfig, clock: Clock) -> dict[str, float]:
        """One step of the optimizer on the trajectories that have come."""
        learning_rate = rate_at(config.learning_rate, clock.remaining)
        batch = acted_batch(learner, rollout)
        correct = partial(
            corrected,
            learner,
            rollout,
            batch,
            critic=learner.model,
            gamma=config.gamma,
            rho_bar=config.rho_bar,
            c_bar=config.c_bar,
            lambda_=config.vtrace_lambda,
        )
        if not learner.takes_whole:  # V-trace takes whole rollouts: values of all rows come before the shards'
            with torch.no_grad():
                values, log_probs, _ = learner.model.evaluate(batch["rows"], batch["actions"])
            batch |= correct(values=values, log_probs=log_probs)

        def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            values, log_probs, entropies = learner.model.evaluate(rows["rows"], rows["actions"])
            if learner.takes_whole:
                rows = rows | correct(values=values, log_probs=log_probs)
            return impala_loss((values, log_probs, entropies), rows, config)

        told = learner.minimize(batch, loss_of, learning_rate=learning_rate, max_grad_norm=config.max_grad_norm)
        learner.n_updates += 1
        own = {"train/learning_rate": learning_rate}
        return own | actor_learner_metrics(learner, rollout, told, max_lag=config.max_lag)
