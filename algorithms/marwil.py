"""Monotonic advantage re-weighted imitation learning: Wang et al., 2018 (NeurIPS), algorithm 1.

    for iteration = 1, 2, …
        gradient_steps times: draw a minibatch of the dataset;                                (learner)
            Â ← R − V(s),  R the discounted return to the end of the episode
            c² ← c² + rate · (mean Â² − c²)
            descend on −exp(β Â / c) log π(a|s) + vf_coef · ½ (R − V(s))²

Where an episode was cut off, R goes on with V of its last observation. With β = 0 it is behavioural cloning, and needs
no returns. Names and defaults are RLlib's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rl import Clock, Learner, OfflineAlgorithm, Rollout, number, read_dataset, take_dataset_steps, torch
from .bc import BCConfig, log_likelihood

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("observations", "actions", "returns", "end_discounts", "end_observations")
C_SQUARED = "squared_advantage"
"""The learner's number c²."""


@dataclass(frozen=True, kw_only=True)
class MARWILConfig(BCConfig):
    """Hyperparameters of MARWIL, those of `BCConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    beta: float = number(1.0, at_least=0)
    """How much better actions count for more (β): 0 is behavioural cloning."""
    vf_coef: float = number(1.0, at_least=0)
    """Weight of the value loss."""
    moving_average_sqd_adv_norm_start: float = number(100.0, above=0)
    """First value of the moving average of squared advantages (c²), by whose root they are divided."""
    moving_average_sqd_adv_norm_update_rate: float = number(1e-8, at_least=0, at_most=1)
    """How far it goes towards a minibatch's mean with each."""


def advantage_weights(
    model: Any, minibatch: dict[str, Tensor], config: MARWILConfig, c_squared: float
) -> tuple[dict[str, Tensor], float]:
    """`returns` [B] and `weights` [B] of a minibatch's rows, both without gradient; and the next c², which all of its
    rows decide."""
    with torch.no_grad():
        returns = minibatch["returns"] + minibatch["end_discounts"] * model.values(minibatch["end_observations"])
        advantages = returns - model.values(minibatch["observations"])
        mean = float(advantages.square().mean())
        c_squared += config.moving_average_sqd_adv_norm_update_rate * (mean - c_squared)
        weights = (config.beta * advantages / c_squared**0.5).exp()
    return {"returns": returns, "weights": weights}, c_squared


def marwil_loss(model: Any, rows: dict[str, Tensor], config: MARWILConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimize and metrics of rows that have `advantage_weights`; without β they need none."""
    log_probs = log_likelihood(model, rows)
    metrics = {"train/action_probability": log_probs.detach().exp().mean()}
    if not config.beta:
        loss = -log_probs.mean()
        return loss, {"train/loss": loss.detach()} | metrics
    policy_loss = -(rows["weights"] * log_probs).mean()
    value_loss = 0.5 * (rows["returns"] - model.values(rows["observations"])).square().mean()
    loss = policy_loss + config.vf_coef * value_loss
    metrics |= {
        "train/loss": loss.detach(),
        "train/policy_loss": policy_loss.detach(),
        "train/value_loss": value_loss.detach(),
        "train/weight": rows["weights"].mean(),
    }
    return loss, metrics


class MARWIL(OfflineAlgorithm[MARWILConfig]):
    """MARWIL from a dataset. Arguments as in `OfflineAlgorithm`, hyperparameters as in `MARWILConfig`."""

    name = "marwil"
    config_class = MARWILConfig
    presets_path = Path(__file__).parent / "presets" / "marwil.toml"
    shards_gradients = True

    @staticmethod
    def prepare(learner: Learner, config: MARWILConfig) -> None:
        """The dataset, Adam, and c²."""
        read_dataset(learner, config)
        learner.adam()
        learner.numbers[C_SQUARED] = config.moving_average_sqd_adv_norm_start

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: MARWILConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""
        return take_dataset_steps(learner, config, clock, descend)


def descend(learner: Learner, config: MARWILConfig, learning_rate: float) -> dict[str, Tensor]:
    """One step of Adam on a minibatch."""
    minibatch = learner.draw(*(COLUMNS if config.beta else COLUMNS[:2]))
    metrics = {}
    if config.beta:
        weighted, c_squared = advantage_weights(learner.model, minibatch, config, learner.numbers[C_SQUARED])
        learner.numbers[C_SQUARED] = c_squared
        metrics["train/squared_advantage"] = torch.tensor(c_squared)
        minibatch |= weighted

    def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return marwil_loss(learner.model, rows, config)

    told = learner.minimize(minibatch, loss_of, learning_rate=learning_rate, max_grad_norm=config.max_grad_norm)
    learner.n_updates += 1
    return told | metrics
