"""Soft actor-critic: algorithm 1 of Haarnoja et al., 2018 (arXiv 1812.05905), with the temperature learned; and its
form for discrete actions, Christodoulou, 2019 (arXiv 1910.07207).

    for iteration = 1, 2, …
        act with a ~ π(·|s) for train_freq steps in every environment                        (rollout workers)
        store the transitions in the replay memory D                                          (learner)
        gradient_steps times: sample a minibatch of D;
            critics    y ← r + discount · (min_i Q_i(s', a'; θ⁻) − α log π(a'|s')),  a' ~ π(·|s')
            actor      descend on α log π(a|s) − min_i Q_i(s, a),  a ~ π(·|s)
            temperature  descend on −log α · (log π(a|s) + target entropy)
            θ⁻ ← τ θ + (1 − τ) θ⁻

With discrete actions the expectations over a and a' are sums over π. Names and defaults are Stable-Baselines3's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..rl import (
    Acted,
    Clock,
    Learner,
    OffPolicyAlgorithm,
    ReplayConfig,
    Rollout,
    learn_from_replay,
    number,
    soft_actor_loss,
    soft_critic_loss,
    takes_arrays,
    torch,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..rl import KnownLoss, Rows


@dataclass(frozen=True, kw_only=True)
class EntropyConfig:
    """Hyperparameters of all whose actor is SAC's."""

    tau: float = number(0.005, above=0, at_most=1)
    """How far the target critics go towards the critics with each update (τ)."""
    ent_coef: float | Literal["auto"] = number("auto", above=0, words=("auto",))
    """Temperature (α): the weight of the entropy; auto learns it, from 1."""
    target_entropy: float | Literal["auto"] = number("auto", words=("auto",))
    """Entropy that the learned temperature aims at, in nats; auto is −(number of actions), with actions in [−1, 1], and
    0.89 log n for n discrete ones."""


@dataclass(frozen=True, kw_only=True)
class SACConfig(EntropyConfig, ReplayConfig):
    """Hyperparameters of SAC, with Stable-Baselines3's names and defaults, those of `ReplayConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    learning_starts: int = number(100, whole=True, at_least=0)
    """Environment steps, over all environments, before the first update; until then actions are uniform."""


def target_entropy(model: Any, config: EntropyConfig, rows: Rows) -> float | Tensor:
    """The entropy to aim at: −dim A, as the authors have it; of discrete actions a share of the largest one, that
    of the actions allowed in each of the rows."""
    if config.target_entropy != "auto":
        return float(config.target_entropy)
    if model.spec.kind == "categorical_actor_q":
        return 0.89 * model.allowed(rows).log()
    return -float(model.actions.row_size)


def critic_loss(model: Any, target: Any, minibatch: dict[str, Tensor], alpha: float | Tensor, noise: Tensor) -> Tensor:
    """½ Σ_i mean (Q_i(s, a) − y)² (equation 5), y without gradient."""
    with torch.no_grad():
        value, log_prob = model.expectations(target, minibatch["next_observations"], noise)
        y = minibatch["rewards"] + minibatch["discounts"] * (value - alpha * log_prob)
    values = model.values(minibatch["observations"], minibatch["actions"])
    return 0.5 * (values - y).square().mean(-1).sum()


def actor_loss(model: Any, minibatch: dict[str, Tensor], alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Mean α log π(a|s) − min_i Q_i(s, a) (equation 7), a drawn with the rows' `noise`; and log π(a|s) [B]."""
    value, log_prob = model.expectations(model, minibatch["observations"], minibatch["noise"])
    return (alpha * log_prob - value).mean(), log_prob.detach()


class SAC(OffPolicyAlgorithm[SACConfig]):
    """SAC on rollout workers and one learner. Arguments as in `Algorithm`, hyperparameters as in `SACConfig`."""

    name = "sac"
    config_class = SACConfig
    models = ("gaussian_actor_q", "categorical_actor_q")
    shards_gradients = True
    presets_path = Path(__file__).parent / "presets" / "sac.toml"

    @staticmethod
    @takes_arrays
    def explore(model: Any, rows: Any, noise: Any, config: SACConfig, clock: Clock) -> Acted:
        """Draw from the policy; uniformly before learning starts."""
        if clock.timesteps < config.learning_starts:
            return Acted(model.uniform(rows, noise))
        return Acted(model.choose(model.outputs(rows), noise))

    @staticmethod
    def prepare(learner: Learner, config: SACConfig) -> None:
        """Adam for each part, the target critics θ⁻, the replay memory."""
        prepare_parts(learner, config)
        learner.add_replay(config.buffer_size, gamma=config.gamma, n_step=config.n_step)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: SACConfig, clock: Clock) -> dict[str, float]:
        """Store the rollout, then `gradient_steps` minibatches."""
        return learn_from_replay(learner, rollout, config, clock, descend)


def prepare_parts(learner: Learner, config: EntropyConfig) -> None:
    """Adam for each part, the temperature where it is given, the target critics θ⁻."""
    for part in ("actor", "critics", "log_alpha"):
        learner.adam(part)
    if config.ent_coef != "auto":
        with torch.no_grad():
            learner.model.log_alpha.fill_(math.log(config.ent_coef))
    learner.add_target()


def descend(learner: Learner, config: SACConfig, learning_rate: float) -> dict[str, Tensor]:
    """One step of Adam for critics, actor and temperature, on one minibatch; and of the target critics."""
    model: Any = learner.model
    minibatch, _ = learner.sample(config.batch_size)
    minibatch["noise"], minibatch["next_noise"] = learner.noise(2 * config.batch_size).chunk(2)
    alpha = model.log_alpha.detach().exp()
    losses: tuple[Any, Any] = critic_loss, actor_loss
    own, target = model, learner.target
    if learner.plain is not None:  # in half of the time
        own, target, losses = learner.plain, target.plain, (soft_critic_loss, soft_actor_loss)

    def loss_of_critics(rows: dict[str, Tensor]) -> tuple[Tensor | KnownLoss, dict[str, Tensor]]:
        loss = losses[0](own, target, rows, alpha, rows["next_noise"])
        return loss, {"train/critic_loss": loss.detach()}

    def loss_of_actor(rows: dict[str, Tensor]) -> tuple[Tensor | KnownLoss, dict[str, Tensor]]:
        loss, log_prob = losses[1](own, rows, alpha)
        return loss, {"train/actor_loss": loss.detach(), "log_prob": log_prob}

    metrics = learner.minimize(minibatch, loss_of_critics, "critics", learning_rate=learning_rate)
    metrics |= learner.minimize(minibatch, loss_of_actor, "actor", learning_rate=learning_rate)
    metrics["train/ent_coef"], log_prob = alpha, metrics.pop("log_prob")
    if config.ent_coef == "auto":
        surplus = (log_prob + target_entropy(model, config, minibatch["observations"])).mean()
        temperature_loss = -model.log_alpha * surplus
        learner.optimizers["log_alpha"].minimize(temperature_loss, learning_rate=learning_rate)
        metrics["train/ent_coef_loss"] = temperature_loss.detach()
    learner.update_target(config.tau, "critics")
    learner.n_updates += 1
    return metrics
