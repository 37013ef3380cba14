"""Metrics that users choose, by name or by the import path of a function of their own; scikit-learn computes most."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import InputError, nearest
from ..models.own_modules import check_import_path, load_named
from .scores import scores

if TYPE_CHECKING:
    from .fitted import FittedModel
    from .stream import Stream
    from .table import Table


@dataclass(frozen=True)
class _Metric:
    """A function of `sklearn.metrics`, and what it wants beside the labels: the most likely classes, the probabilities,
    or quantities."""

    function: str
    of: str


_OF_CLASSES = {
    "f1": _Metric("f1_score", "labels"),
    "precision": _Metric("precision_score", "labels"),
    "recall": _Metric("recall_score", "labels"),
    "balanced_accuracy": _Metric("balanced_accuracy_score", "labels"),
    "mcc": _Metric("matthews_corrcoef", "labels"),
    "kappa": _Metric("cohen_kappa_score", "labels"),
    "auc": _Metric("roc_auc_score", "probabilities"),
    "average_precision": _Metric("average_precision_score", "probabilities"),
}
_OF_QUANTITIES = {
    "mse": _Metric("mean_squared_error", "quantities"),
    "mape": _Metric("mean_absolute_percentage_error", "quantities"),
    "median_ae": _Metric("median_absolute_error", "quantities"),
    "max_error": _Metric("max_error", "quantities"),
    "explained_variance": _Metric("explained_variance_score", "quantities"),
}
_AVERAGED = ("f1", "precision", "recall")
_ALWAYS = {True: ("accuracy", "logloss"), False: ("rmse", "mae", "r2")}
"""What `scores` tells of classes, and of quantities."""


def named_metrics(given: str | Sequence[str] | Mapping[str, str]) -> str:
    """Metrics as settings hold them: "accuracy, f1", or "own=package.module:function" for one of the user's own."""
    if isinstance(given, str):
        parts = given.split(",")
    elif isinstance(given, Mapping):
        parts = [f"{name}={path}" for name, path in given.items()]
    else:
        parts = [str(each) for each in given]
    return ",".join(part.strip() for part in parts if part.strip())


def paths_of(given: str) -> dict[str, str]:
    """Import paths among metrics, by their names."""
    return {name: path for name, path in _read(given).items() if ":" in path}


def check_metrics(given: str, classes: Sequence[Any] | None) -> None:
    """Raise InputError if one of the metrics is not known, does not go with the label, or cannot be computed here."""
    ours, theirs = _ALWAYS[classes is not None], _OF_QUANTITIES if classes is None else _OF_CLASSES
    for name, path in _read(given).items():
        if ":" in path:
            check_import_path(f"metric {name}", path)
        elif path not in (*ours, *theirs):
            known = sorted((*ours, *theirs))
            raise InputError(
                f"metrics name {path!r}, which is none for this label, nor package.module:function of labels and "
                f"predictions. {nearest(path, known)}"
            )
        elif path in theirs and find_spec("sklearn") is None:
            raise InputError(f"metric {path!r} needs scikit-learn: pip install scikit-learn, or name one of {ours}")


def measured(given: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What metrics say of predictions.

    Args:
        given: as `named_metrics` gave it.
        predictions: probabilities [rows, classes], or quantities [rows].
        labels: codes of classes, or quantities [rows].

    Returns:
        values by name, those left out that are not defined of these rows. A function of the user's own is given labels
        [rows] (whole numbers, of classes) and predictions, in this order as scikit-learn has it.
    """
    found: dict[str, float] = {}
    always = scores(predictions, labels)
    truth = labels.astype(int) if predictions.ndim == 2 else labels
    for name, path in _read(given).items():
        if path in always:
            found[name] = always[path]
        elif ":" in path:
            found[name] = float(load_named(f"metric {name}", path)(truth, predictions))
        else:
            found[name] = _by_sklearn(path, predictions, truth)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def scores_on(model: FittedModel, rows: Table | Stream, metrics: str = "") -> dict[str, float]:
    """`scores` of a model on rows, and `metrics`; of a stream predictions and labels alone are kept. InputError if
    there are none."""
    found = [(model.predict(features), labels) for features, labels in rows.batches()]
    if not found:
        raise InputError(f"{rows.name} has no rows to evaluate on")
    predictions, labels = (np.concatenate(part) for part in zip(*found, strict=True))
    return scores(predictions, labels) | measured(metrics, predictions, labels)


def _by_sklearn(name: str, predictions: np.ndarray, truth: np.ndarray) -> float:
    metric = (_OF_CLASSES | _OF_QUANTITIES)[name]
    function: Callable[..., Any] = getattr(import_module("sklearn.metrics"), metric.function)
    if metric.of == "quantities":
        return float(function(truth, predictions))
    count = predictions.shape[1]
    if metric.of == "labels":
        options = {"average": "binary" if count == 2 else "macro", "zero_division": 0} if name in _AVERAGED else {}
        return float(function(truth, predictions.argmax(axis=1), **options))
    one_of_each = np.eye(count)[truth]  # each class against the rest, of those that there are
    there = one_of_each.any(axis=0) & ~one_of_each.all(axis=0)
    chosen = np.flatnonzero(there)[-1:] if count == 2 else np.flatnonzero(there)
    return float(np.mean([function(one_of_each[:, c], predictions[:, c]) for c in chosen])) if len(chosen) else math.nan


def _read(given: str) -> dict[str, str]:
    """Name to metric or import path."""
    found = {}
    for part in filter(None, given.split(",")):
        name, equals, path = part.partition("=")
        found[name.rpartition(":")[2] if not equals else name] = path if equals else name
    return found
