"""Boosted trees as XGBoost and LightGBM predict with them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .fitted import FittedModel
from .table import TableSchema

if TYPE_CHECKING:
    import lightgbm
    import xgboost


class XGBoostModel(FittedModel):
    """A booster, saved as UBJ."""

    kind = "xgboost"
    file = "model.ubj"

    @cached_property
    def _booster(self) -> xgboost.Booster:
        import xgboost

        booster = xgboost.Booster(model_file=bytearray(self.content))
        booster.set_param({"nthread": 1})
        return booster

    def predict(self, features: np.ndarray) -> np.ndarray:
        """As `FittedModel.predict`."""
        predicted = self._booster.inplace_predict(features, iteration_range=(0, self.version))
        return with_both_classes(predicted, self.schema)


class LightGBMModel(FittedModel):
    """A booster, saved as LightGBM's text."""

    kind = "lightgbm"
    file = "model.txt"

    @cached_property
    def _booster(self) -> lightgbm.Booster:
        import lightgbm

        return lightgbm.Booster(model_str=self.content.decode())

    def predict(self, features: np.ndarray) -> np.ndarray:
        """As `FittedModel.predict`."""
        predicted = self._booster.predict(features, num_iteration=self.version, num_threads=1)
        return with_both_classes(np.asarray(predicted), self.schema)


def with_both_classes(predicted: np.ndarray, schema: TableSchema) -> np.ndarray:
    """Probabilities of both classes, where a library tells that of the second one alone."""
    if schema.classes is None or predicted.ndim == 2:
        return predicted
    return np.stack([1 - predicted, predicted], axis=1)
