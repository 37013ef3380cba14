"""Conservative Q-learning, CQL(H): algorithm 1 and equation 4 of Kumar et al., 2020 (arXiv 2006.04779), on SAC where
actions are continuous and on DQN where they are discrete.

    for iteration = 1, 2, …
        gradient_steps times: draw a minibatch of the dataset;                                (learner)
            critics  descend on ½ (Q_i(s, a) − y)² + min_q_weight · (T log ∫ exp(Q_i(s, a') / T) da' − Q_i(s, a))
            actor, temperature, θ⁻ as in SAC; with discrete actions θ⁻ alone

The integral is a sum over discrete actions. Over continuous ones it is estimated by importance sampling: the mean of
exp(Q / T) / μ(a') over actions of uniform density μ, and of the policy's in s and in the next state. All lie in
[−1, 1], where the uniform density is 2^−dim. Names and defaults are RLlib's and SAC's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rl import (
    TRANSITIONS,
    Clock,
    Learner,
    OfflineAlgorithm,
    OfflineConfig,
    Rollout,
    number,
    read_dataset,
    take_dataset_steps,
    torch,
)
from .bc import log_likelihood
from .dqn import dqn_loss
from .sac import EntropyConfig, critic_loss, prepare_parts, target_entropy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CQLConfig(EntropyConfig, OfflineConfig):
    """Hyperparameters of CQL, those of `OfflineConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    min_q_weight: float = number(5.0, at_least=0)
    """How much values of actions that the dataset does not hold are pressed down (α of the paper)."""
    temperature: float = number(1.0, above=0)
    """Temperature of the soft maximum over actions (T): towards 0 it is the maximum."""
    num_actions: int = number(10, whole=True, at_least=1)
    """Actions drawn of each kind to estimate it, where they are continuous."""
    bc_steps: int = number(0, whole=True, at_least=0)
    """First gradient steps in which the actor imitates the dataset instead of following the critics."""
    backup_entropy: bool = False
    """Whether the critics' target counts the policy's entropy, as SAC's does."""
    double_q: bool = True
    """Whether the weights choose the action whose value the target network gives, where actions are discrete."""


def soft_maximum(q: Tensor, log_densities: Tensor, temperature: float) -> Tensor:
    """T log of the mean of exp(Q / T) / μ over the last axis, of N actions drawn with densities μ: an estimate of
    T log ∫ exp(Q / T) da."""
    estimate = (q / temperature - log_densities).logsumexp(-1) - math.log(q.shape[-1])
    return temperature * estimate


def continuous_penalty(model: Any, minibatch: dict[str, Tensor], config: CQLConfig, noise: Tensor) -> Tensor:
    """Σ_i mean of the soft maximum of Q_i(s, ·) minus Q_i of the dataset's action; `noise` is standard normal, [B, 3 N,
    K] for N = `num_actions`."""
    rows, count = minibatch["observations"], config.num_actions
    size, width = minibatch["actions"].shape
    uniform, here, after = (part.reshape(size * count, width) for part in noise.split(count, 1))
    with torch.no_grad():
        each, following = model.repeat(rows, count), model.repeat(minibatch["next_observations"], count)
        drawn = [(model.uniform(each, uniform), torch.full((size * count,), -width * math.log(2), device=noise.device))]
        for place, own in ((each, here), (following, after)):
            drawn.append(model.distribution(model.outputs(place)).sample_with_log_prob(own))
        actions = torch.cat([chosen.reshape(size, count, width) for chosen, _ in drawn], 1)
        log_densities = torch.cat([densities.reshape(size, count) for _, densities in drawn], 1)
    q = model.values(model.repeat(rows, 3 * count), actions.reshape(-1, width))
    maximum = soft_maximum(q.reshape(-1, size, 3 * count), log_densities, config.temperature)
    return (maximum - model.values(rows, minibatch["actions"])).mean(-1).sum()


def discrete_penalty(q: Tensor, actions: Tensor, temperature: float) -> Tensor:
    """Mean of T log Σ_a' exp(Q(s, a') / T) − Q(s, a) over q [B, actions]: at least 0, and 0 with one action."""
    maximum = temperature * (q / temperature).logsumexp(-1)
    return (maximum - q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)).mean()


class CQL(OfflineAlgorithm[CQLConfig]):
    """CQL from a dataset. Arguments as in `OfflineAlgorithm`, hyperparameters as in `CQLConfig`."""

    name = "cql"
    config_class = CQLConfig
    presets_path = Path(__file__).parent / "presets" / "cql.toml"
    models = ("gaussian_actor_q", "q_network")
    shards_gradients = True

    @staticmethod
    def prepare(learner: Learner, config: CQLConfig) -> None:
        """The dataset, Adam for each part, the target critics θ⁻."""
        read_dataset(learner, config)
        if learner.model.spec.kind == "q_network":
            learner.adam()
            learner.add_target()
        else:
            prepare_parts(learner, config)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: CQLConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""
        discrete = learner.model.spec.kind == "q_network"
        return take_dataset_steps(learner, config, clock, descend_discrete if discrete else descend)


def descend_discrete(learner: Learner, config: CQLConfig, learning_rate: float) -> dict[str, Tensor]:
    """One step of Adam on DQN's loss and the penalty; and of the target network."""
    model, minibatch = learner.model, learner.draw(*TRANSITIONS)
    minibatch["weights"] = torch.ones_like(minibatch["rewards"])

    def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _, q = dqn_loss(model, learner.target, rows, config)  # type: ignore[arg-type]
        penalty = discrete_penalty(model(rows["observations"]), rows["actions"], config.temperature)
        told = {"train/critic_loss": loss.detach(), "train/penalty": penalty.detach(), "train/q_values": q.mean()}
        return loss + config.min_q_weight * penalty, told

    metrics = learner.minimize(minibatch, loss_of, learning_rate=learning_rate)
    learner.update_target(config.tau)
    learner.n_updates += 1
    return metrics


def descend(learner: Learner, config: CQLConfig, learning_rate: float) -> dict[str, Tensor]:
    """One step of Adam for critics, actor and temperature, on one minibatch; and of the target critics."""
    model, optimizers = learner.model, learner.optimizers
    minibatch = learner.draw(*TRANSITIONS)
    size, alpha = len(minibatch["rewards"]), model.log_alpha.detach().exp()
    drawn = 3 * config.num_actions
    minibatch["noise"], minibatch["next_noise"], others = learner.noise((2 + drawn) * size).split(
        (size, size, drawn * size)
    )
    minibatch["penalty_noise"] = others.reshape(size, drawn, -1)
    imitates = learner.n_updates < config.bc_steps

    def loss_of_critics(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        entropy_weight = alpha if config.backup_entropy else 0.0
        loss = critic_loss(model, learner.target, rows, entropy_weight, rows["next_noise"])
        penalty = continuous_penalty(model, rows, config, rows["penalty_noise"])
        told = {"train/critic_loss": loss.detach(), "train/penalty": penalty.detach()}
        return loss + config.min_q_weight * penalty, told

    def loss_of_actor(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        value, log_prob = model.expectations(model, rows["observations"], rows["noise"])
        loss = (alpha * log_prob - (log_likelihood(model, rows) if imitates else value)).mean()
        return loss, {"train/actor_loss": loss.detach(), "log_prob": log_prob.detach()}

    metrics = learner.minimize(minibatch, loss_of_critics, "critics", learning_rate=learning_rate)
    metrics |= learner.minimize(minibatch, loss_of_actor, "actor", learning_rate=learning_rate)
    log_prob = metrics.pop("log_prob")
    if config.ent_coef == "auto":
        aim = target_entropy(model, config, minibatch["observations"])
        optimizers["log_alpha"].minimize(-model.log_alpha * (log_prob + aim).mean(), learning_rate=learning_rate)
    learner.update_target(config.tau, "critics")
    learner.n_updates += 1
    return metrics | {"train/ent_coef": alpha}
