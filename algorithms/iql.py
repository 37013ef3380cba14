"""Implicit Q-learning: algorithm 1 of Kostrikov et al., 2022 (arXiv 2110.06169).

    for iteration = 1, 2, …
        gradient_steps times: draw a minibatch of the dataset;                                (learner)
            V       descend on L_τ(min_i Q_i(s, a; θ⁻) − V(s)),  L_τ(u) = |τ − 1{u < 0}| u²
            policy  descend on −min(exp(β (min_i Q_i(s, a; θ⁻) − V(s))), max_weight) log π(a|s)
            critics descend on (Q_i(s, a) − y)²,  y ← r + discount · V(s')
            θ⁻ ← τ θ + (1 − τ) θ⁻

No action is asked for that is not in the dataset. Defaults are the authors' for locomotion; actions are discrete or
continuous.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class IQLConfig(OfflineConfig):
    """Hyperparameters of IQL, those of `OfflineConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    expectile: float = number(0.7, above=0, at_most=1)
    """Which expectile of the values of the dataset's actions V is (τ of the paper): 0.5 is their mean, 1 the best."""
    beta: float = number(3.0, at_least=0)
    """Inverse temperature: how much better actions count for more in the policy; 0 is behavioural cloning."""
    max_weight: float = number(100.0, above=0)
    """The largest weight of an action."""
    tau: float = number(0.005, above=0, at_most=1)
    """How far the target critics go towards the critics with each update."""


def expectile_loss(differences: Tensor, expectile: float) -> Tensor:
    """Mean of |τ − 1{u < 0}| u² over differences u [B] (equation 5)."""
    weights = torch.where(differences.detach() < 0, 1 - expectile, expectile)
    return (weights * differences.square()).mean()


def value_loss(model: Any, q: Tensor, minibatch: dict[str, Tensor], config: IQLConfig) -> tuple[Tensor, Tensor]:
    """Loss of V against q [B], the target critics' least value of the dataset's actions; and V [B] without gradient."""
    values = model.state_values(minibatch["observations"])
    return expectile_loss(q - values, config.expectile), values.detach()


def policy_loss(model: Any, advantages: Tensor, minibatch: dict[str, Tensor], config: IQLConfig) -> Tensor:
    """Weighted imitation (equation 7)."""
    weights = (config.beta * advantages).exp().clamp(max=config.max_weight)
    return -(weights * log_likelihood(model, minibatch)).mean()


def critic_loss(model: Any, minibatch: dict[str, Tensor]) -> Tensor:
    """Σ_i mean (Q_i(s, a) − y)² (equation 6), y without gradient."""
    with torch.no_grad():
        next_values = model.state_values(minibatch["next_observations"])
        y = minibatch["rewards"] + minibatch["discounts"] * next_values
    return (model.action_values(minibatch["observations"], minibatch["actions"]) - y).square().mean(-1).sum()


class IQL(OfflineAlgorithm[IQLConfig]):
    """IQL from a dataset. Arguments as in `OfflineAlgorithm`, hyperparameters as in `IQLConfig`."""

    name = "iql"
    config_class = IQLConfig
    presets_path = Path(__file__).parent / "presets" / "iql.toml"
    models = ("gaussian_actor_qv", "categorical_actor_qv")
    shards_gradients = True

    @staticmethod
    def prepare(learner: Learner, config: IQLConfig) -> None:
        """The dataset, Adam for each part, the target critics θ⁻."""
        read_dataset(learner, config)
        for part in ("actor", "critics", "value"):
            learner.adam(part)
        learner.add_target()

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: IQLConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""
        return take_dataset_steps(learner, config, clock, descend)


def descend(learner: Learner, config: IQLConfig, learning_rate: float) -> dict[str, Tensor]:
    """One step of Adam for V, policy and critics on one minibatch; and of the target critics."""
    model = learner.model
    minibatch = learner.draw(*TRANSITIONS)
    with torch.no_grad():
        minibatch["q"] = learner.target.action_values(minibatch["observations"], minibatch["actions"]).amin(0)

    def loss_of_value(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, values = value_loss(model, rows["q"], rows, config)
        return loss, {"train/value_loss": loss.detach(), "values": values}

    def loss_of_actor(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = policy_loss(model, rows["advantages"], rows, config)
        return loss, {"train/actor_loss": loss.detach()}

    def loss_of_critics(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = critic_loss(model, rows)
        return loss, {"train/critic_loss": loss.detach()}

    metrics = learner.minimize(minibatch, loss_of_value, "value", learning_rate=learning_rate)
    values = metrics.pop("values")
    minibatch["advantages"] = minibatch["q"] - values
    metrics |= learner.minimize(minibatch, loss_of_actor, "actor", learning_rate=learning_rate)
    metrics |= learner.minimize(minibatch, loss_of_critics, "critics", learning_rate=learning_rate)
    learner.update_target(config.tau, "critics")
    learner.n_updates += 1
    return metrics | {"train/q_values": minibatch["q"].mean(), "train/values": values.mean()}
