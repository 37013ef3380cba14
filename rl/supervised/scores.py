"""How good predictions are, in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...runtime import InputError

if TYPE_CHECKING:
    from .fitted import FittedModel
    from .stream import Stream
    from .table import Table


def scores_on(model: FittedModel, rows: Table | Stream) -> dict[str, float]:
    """`scores` of a model on rows; of a stream predictions and labels alone are kept. InputError if there are none."""
    found = [(model.predict(features), labels) for features, labels in rows.batches()]
    if not found:
        raise InputError(f"{rows.name} has no rows to evaluate on")
    predictions, labels = zip(*found, strict=True)
    return scores(np.concatenate(predictions), np.concatenate(labels))


def scores(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What is said of a model.

    Args:
        predictions: probabilities [rows, classes], or quantities [rows].
        labels: codes of classes or quantities [rows].

    Returns:
        `accuracy` and `logloss` (mean of −ln p of the true class, p at least 1e-7); or `rmse`, `mae` and `r2`.
    """
    if predictions.ndim == 2:
        truth = labels.astype(int)
        right = np.clip(predictions[np.arange(len(truth)), truth].astype(float), 1e-7, 1)
        return {
            "accuracy": float((predictions.argmax(axis=1) == truth).mean()),
            "logloss": float(-np.log(right).mean()),
        }
    errors = predictions.astype(float) - labels
    spread = float(((labels - labels.mean(dtype=float)) ** 2).mean())
    return {
        "rmse": float(np.sqrt((errors**2).mean())),
        "mae": float(np.abs(errors).mean()),
        "r2": 1 - float((errors**2).mean()) / spread if spread else float("nan"),
    }
