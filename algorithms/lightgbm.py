"""LightGBM: gradient boosting of trees that grow leaf by leaf (Ke et al., 2017), in one actor.

Its own distributed mode wants lists of machines and ports; what is gained here is the run folder, its resuming, and
serving. Rounds go from state to state by LightGBM's text format, so a fit that was killed or resumed has the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..rl import (
    BoostingActor,
    BoostingConfig,
    FittedModel,
    History,
    LightGBMModel,
    TableAlgorithm,
    library_parameters,
    number,
)


@dataclass(frozen=True, kw_only=True)
class LightGBMConfig(BoostingConfig):
    """Hyperparameters under LightGBM's names, with its defaults.

    Raises:
        InputError: a value that cannot work.
    """

    objective: str = "auto"
    """The loss, by LightGBM's name. auto: binary, multiclass or regression, as the label says."""
    learning_rate: float = number(0.1, above=0, at_most=1)
    """What a tree's leaves are multiplied with."""
    num_leaves: int = number(31, whole=True, at_least=2)
    """Of a tree."""
    max_depth: int = number(-1, whole=True, at_least=-1)
    """Of a tree; -1: no limit."""
    min_child_samples: int = number(20, whole=True, at_least=0)
    """Least rows of a leaf."""
    reg_lambda: float = number(0.0, at_least=0)
    """Draws leaves to 0."""
    reg_alpha: float = number(0.0, at_least=0)
    """The same by absolute value."""
    max_bin: int = number(255, whole=True, at_least=2)
    """Quantiles of a feature."""


class LightGBM(TableAlgorithm[LightGBMConfig]):
    """LightGBM on a table. Arguments as in `TableAlgorithm`, hyperparameters as in `LightGBMConfig`."""

    name = "lightgbm"
    config_class = LightGBMConfig
    module = "lightgbm"

    def check(self) -> None:
        """Raise InputError for more than one actor."""
        self.require(self.run.workers == 1, "workers", self.run.workers, "1: LightGBM fits in one actor")

    def begin(self) -> None:
        """Start the actor."""
        self._actor = BoostingActor(self.train_rows, self.held_out_rows)

    def boost(self, content: bytes | None, rounds: int) -> tuple[bytes, History]:
        """Add rounds."""
        return self._actor.boost(content, rounds, self.parameters())

    def end(self) -> None:
        """End the actor."""
        self._actor.close()

    def model_of(self, content: bytes, rounds: int) -> FittedModel:
        """A booster."""
        return LightGBMModel(self.table.schema, content, rounds)

    def parameters(self) -> dict[str, Any]:
        """What LightGBM is told."""
        own = library_parameters(self.config, self.table.schema.classes, _OBJECTIVES)
        return own | {"seed": self.run.seed, "deterministic": True, "force_row_wise": True, "num_threads": 1}


_OBJECTIVES = ("regression", "binary", "multiclass")
