"""Behavioural cloning: the policy under which a dataset's actions are most probable (Pomerleau, 1991; Bain & Sammut,
1995).

    for iteration = 1, 2, …
        gradient_steps times: draw a minibatch of the dataset; descend on −log π(a|s)         (learner)

Nothing but observations and actions is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..rl import (
    Clock,
    Learner,
    OfflineAlgorithm,
    OfflineConfig,
    Rate,
    Rollout,
    number,
    read_dataset,
    take_dataset_steps,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BCConfig(OfflineConfig):
    """Hyperparameters of behavioural cloning, those of `OfflineConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(1e-3, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    max_grad_norm: float | None = number(None, above=0, optional=True)
    """The gradient's norm is clipped to this; none: it is not."""


class BC(OfflineAlgorithm[BCConfig]):
    """Behavioural cloning of a dataset. Arguments as in `OfflineAlgorithm`, hyperparameters as in `BCConfig`."""

    name = "bc"
    config_class = BCConfig
    presets_path: ClassVar[Path | None] = None
    shards_gradients = True

    @staticmethod
    def prepare(learner: Learner, config: BCConfig) -> None:
        """The dataset, and Adam."""
        read_dataset(learner, config)
        learner.adam()

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: BCConfig, clock: Clock) -> dict[str, float]:
        """`gradient_steps` minibatches."""
        return take_dataset_steps(learner, config, clock, descend)


def descend(learner: Learner, config: BCConfig, learning_rate: float) -> dict[str, Tensor]:
    """One step of Adam towards the maximum likelihood of a minibatch's actions."""
    minibatch = learner.draw("observations", "actions")

    def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        log_probs = log_likelihood(learner.model, rows)
        loss = -log_probs.mean()
        return loss, {"train/loss": loss.detach(), "train/action_probability": log_probs.detach().exp().mean()}

    told = learner.minimize(minibatch, loss_of, learning_rate=learning_rate, max_grad_norm=config.max_grad_norm)
    learner.n_updates += 1
    return told


def log_likelihood(model: Any, minibatch: dict[str, Tensor]) -> Tensor:
    """log π(a|s) [B] of a minibatch's actions."""
    return model.distribution(model.outputs(minibatch["observations"])).log_prob(minibatch["actions"])
