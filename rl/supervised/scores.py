"""How good predictions are, in numpy."""

from __future__ import annotations

import numpy as np


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
