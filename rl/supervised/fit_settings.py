"""Settings that all fits of tables share, and those that boosting has everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..learner_settings import LearnerSettings
from ..settings import Hyperparameters, number, validate
from .metrics import named_metrics


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What all fits share. Raises InputError on values that cannot work."""

    label: str = "label"
    """The column to predict."""
    task: str = "auto"
    """classification, regression, or auto: labels that are whole numbers, truth values or texts are classes."""
    held_out: float = number(0.2, at_least=0, at_most=0.9)
    """Part of the rows that is not learned from, drawn by the seed: it is measured in each round, and evaluated on. Of
    a stream, or where a dataset is given to evaluate on (eval_dataset), none."""
    workers: int = number(1, whole=True, at_least=1)
    """Actors that fit; has no influence on the result."""
    seed: int = number(0, whole=True, at_least=0)
    """Every random number of the fit derives from it."""
    metrics: str = field(default="", metadata={"metavar": "NAMES"})
    """What else is measured of rows that are held out, separated by commas: accuracy, logloss, f1, precision, recall,
    balanced_accuracy, mcc, kappa, auc, average_precision; rmse, mae, r2, mse, mape, median_ae, max_error,
    explained_variance; or package.module:function of labels and predictions."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", named_metrics(self.metrics))
        validate(self)


@dataclass(frozen=True, kw_only=True)
class NetworkFitSettings(FitSettings, LearnerSettings):
    """What all fits share, and how a network's gradients are computed."""

    threads: int = number(1, whole=True, at_least=1)
    """Threads per process for numerical libraries; is part of what decides the result's bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.read_learners()


@dataclass(frozen=True, kw_only=True)
class BoostingConfig(Hyperparameters):
    """Hyperparameters that boosting of trees has everywhere."""

    rounds_per_iteration: int = number(10, whole=True, at_least=1)
    """Rounds between two states: what a kill costs at most, and how fine the curve is."""
    early_stopping_rounds: int | None = number(None, whole=True, at_least=1, optional=True)
    """End after so many rounds in which what is held out got no better; predictions use the rounds up to the best."""


def library_parameters(
    config: BoostingConfig, classes: Sequence[Any] | None, objectives: tuple[str, str, str]
) -> dict[str, Any]:
    """What a library of boosted trees is told: the hyperparameters that have its names, beside those of the loop.

    Args:
        config: has an `objective`, too.
        classes: of the label; None: it is a quantity.
        objectives: what "auto" means, of a quantity, of two classes and of more.
    """
    ours = {item.name for item in fields(BoostingConfig)}
    told = {name: value for name, value in vars(config).items() if name not in ours}
    if told["objective"] == "auto":
        told["objective"] = objectives[0 if classes is None else 1 if len(classes) <= 2 else 2]
    if classes is not None and str(told["objective"]).startswith("multi"):
        told["num_class"] = len(classes)
    return told
