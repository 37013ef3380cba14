"""What networks descend on: means over rows, so that shards of a minibatch add up to it; torch when needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..lazy import torch
from ..models.own_modules import load_named
from .fit_settings import NetworkFitSettings

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = ("cross_entropy", "mse", "l1", "huber")
Loss = Callable[["Tensor", "Tensor", "Tensor | None"], "Tensor"]
"""Outputs, labels and weights of rows (None: all are 1) → their mean loss []."""


@dataclass(frozen=True)
class Recipe:
    """How a network is learned: settings of `SupervisedConfig`, and of the run."""

    loss: str
    class_weights: tuple[float, ...] | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9
    run: NetworkFitSettings = field(default_factory=NetworkFitSettings)


def loss_of(recipe: Recipe) -> Loss:
    """The loss of a recipe."""
    functional = torch.nn.functional
    named: dict[str, Callable[[Any, Any], Any]] = {
        "mse": functional.mse_loss,
        "l1": functional.l1_loss,
        "huber": functional.huber_loss,
    }
    if recipe.loss == "cross_entropy":
        return _cross_entropy
    plain = named[recipe.loss] if recipe.loss in named else load_named("loss", recipe.loss)
    return lambda said, labels, weights: plain(said, labels)


def _cross_entropy(said: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return torch.nn.functional.cross_entropy(said, labels)
    return (weights * torch.nn.functional.cross_entropy(said, labels, reduction="none")).mean()


def row_weights(recipe: Recipe, labels: Tensor) -> Tensor | None:
    """How much each of a minibatch's rows counts [B]: its class's weight, over their mean; None: all the same."""
    if recipe.class_weights is None:
        return None
    weights = torch.tensor(recipe.class_weights)[labels]
    return weights / weights.mean()
