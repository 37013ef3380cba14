"""What networks descend on: means over rows, so that shards of a minibatch add up to it; torch when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import InputError, nearest
from ..lazy import torch
from ..models.own_modules import check_import_path, load_named
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


def chosen_loss(loss: str, classes: Sequence[Any] | None) -> str:
    """The loss of a label with these classes (None: a quantity): "auto" becomes cross_entropy or mse. InputError for
    one that there is not, or that is none of such labels."""
    if loss == "auto":
        return "mse" if classes is None else "cross_entropy"
    if ":" in loss:
        check_import_path("loss", loss)
        return loss
    fit = [name for name in LOSSES if (name == "cross_entropy") == (classes is not None)]
    if loss not in fit:
        raise InputError(f"loss is {loss!r}, but for this label must be one of {', '.join(fit)}. {nearest(loss, fit)}")
    return loss


def balanced_weights(counts: np.ndarray) -> tuple[float, ...]:
    """Weights of classes of which there are so many rows [classes]: with them each counts as much as any other."""
    return tuple((counts.sum() / (len(counts) * np.maximum(counts, 1))).tolist())


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
