"""TD3 with behavioural cloning: Fujimoto & Gu, 2021 (arXiv 2106.06860), equations 3 to 5.

    for iteration = 1, 2, …
        gradient_steps times: draw a minibatch of the dataset;                                (learner)
            critics as in TD3
            every policy_delay updates:  θ⁻, φ⁻ as in TD3, after
                actor  ascend λ Q_1(s, μ(s)) − (μ(s) − a)²,  λ = α / mean |Q_1(s, μ(s))|

The authors shift and scale states by the dataset's statistics: normalize="obs". Actions lie in [−1, 1] here. Names and
defaults are theirs.
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
from .td3 import DelayedConfig, td3_target

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TD3BCConfig(DelayedConfig, OfflineConfig):
    """Hyperparameters of TD3+BC, those of `OfflineConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    alpha: float = number(2.5, at_least=0)
    """How much values count against imitation (α): 0 is behavioural cloning."""


def value_weight(model: Any, minibatch: dict[str, Tensor], alpha: float) -> Tensor:
    """λ = α / mean |Q_1(s, μ(s))| [], which all rows of a minibatch decide; without gradient."""
    with torch.no_grad():
        rows = minibatch["observations"]
        values = model.first_value(rows, model.choose(model.outputs(rows), None))
        return alpha / values.abs().mean().clamp(min=1e-8)


def actor_loss(model: Any, minibatch: dict[str, Tensor], weight: Tensor) -> Tensor:
    """−λ mean Q_1(s, μ(s)) + mean (μ(s) − a)², for the `weight` λ."""
    rows = minibatch["observations"]
    chosen = model.choose(model.outputs(rows), None)
    imitation = (chosen - minibatch["actions"]).square().mean()
    return imitation - weight * model.first_value(rows, chosen).mean()


class TD3BC(OfflineAlgorithm[TD3BCConfig]):
    """TD3+BC from a dataset. Arguments as in `OfflineAlgorithm`, hyperparameters as in `TD3BCConfig`."""

    name = "td3_bc"
    config_class = TD3BCConfig
    presets_path = Path(__file__).parent / "presets" / "td3_bc.toml"
    models = ("deterministic_actor_q",)
    shards_gradients = True

    @staticmethod
    def model_options(config: TD3BCConfig) -> dict[str, Any]:
        """The number of critics."""
        return {"n_critics": config.n_critics}

    @staticmethod
    def prepare(learner: Learner, config: TD3BCConfig) -> None:
        """The dataset, Adam for actor and critics, their targets."""
        read_dataset(learner, config)
        learner.adam("actor")
        learner.adam("critics")
        learner.add_target()

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: TD3BCConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""
        return take_dataset_steps(learner, config, clock, descend)


def descend(learner: Learner, config: TD3BCConfig, learning_rate: float) -> dict[str, Tensor]:
    """One step of Adam for the critics on one minibatch; every `policy_delay`-th time for the actor and the targets."""
    model = learner.model
    minibatch = learner.draw(*TRANSITIONS)
    minibatch["noise"] = learner.noise(len(minibatch["rewards"]))

    def loss_of_critics(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            y = td3_target(learner.target, rows, rows["noise"], config)
        loss = (model.values(rows["observations"], rows["actions"]) - y).square().mean(-1).sum()
        return loss, {"train/critic_loss": loss.detach()}

    metrics = learner.minimize(minibatch, loss_of_critics, "critics", learning_rate=learning_rate)
    learner.n_updates += 1
    if learner.n_updates % config.policy_delay == 0:
        weight = value_weight(model, minibatch, config.alpha)

        def loss_of_actor(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            loss = actor_loss(model, rows, weight)
            return loss, {"train/actor_loss": loss.detach()}

        metrics |= learner.minimize(minibatch, loss_of_actor, "actor", learning_rate=learning_rate)
        learner.update_target(config.tau)
    return metrics
