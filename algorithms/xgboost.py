"""XGBoost: gradient boosting of trees (Chen & Guestrin, 2016), over actors.

    for each round:
        each rank: gradients g, h of the loss at its rows; histograms of their sums, by feature and quantile
        all ranks: histograms summed; the same tree is grown everywhere, from splits that gain most by −½ (Σg)²/(Σh + λ)

The mathematics is xgboost's own. What is ours: a fixed number of `ranks`, so that the model has the same bits for any
number of actors (xgboost's own depends on that), and the state in between, so that a killed actor costs a few rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..rl import (
    BoostingConfig,
    FittedModel,
    History,
    Ranks,
    TableAlgorithm,
    XGBoostModel,
    choice,
    library_parameters,
    number,
)


@dataclass(frozen=True, kw_only=True)
class XGBoostConfig(BoostingConfig):
    """Hyperparameters under xgboost's names, with its defaults.

    Raises:
        InputError: a value that cannot work.
    """

    ranks: int = number(4, whole=True, at_least=1, at_most=64)
    """Ranges of rows that contribute to the model: part of what decides its bits. Actors compute one or more each."""
    nodes: str = choice("one", "one", "all")
    """Where actors are, which has no influence on the result. one: on one node together, where they meet on the
    loopback. all: wherever there is room; they meet at an address of the network then, where XGBoost's collective asks
    nobody who they are, so it should be a network of your own."""
    objective: str = "auto"
    """The loss, by xgboost's name. auto: binary:logistic, multi:softprob or reg:squarederror, as the label says."""
    learning_rate: float = number(0.3, above=0, at_most=1)
    """What a tree's leaves are multiplied with."""
    max_depth: int = number(6, whole=True, at_least=0)
    """Of a tree; 0: no limit."""
    min_child_weight: float = number(1.0, at_least=0)
    """Least sum of h in a leaf."""
    gamma: float = number(0.0, at_least=0)
    """Least gain of a split."""
    subsample: float = number(1.0, above=0, at_most=1)
    """Part of the rows that each tree sees."""
    colsample_bytree: float = number(1.0, above=0, at_most=1)
    """Part of the features that each tree sees."""
    reg_lambda: float = number(1.0, at_least=0)
    """λ, which draws leaves to 0."""
    reg_alpha: float = number(0.0, at_least=0)
    """The same by absolute value."""
    max_bin: int = number(256, whole=True, at_least=2)
    """Quantiles of a feature."""
    max_delta_step: float = number(0.0, at_least=0)
    """Most that a leaf may say; 0: no limit. Helps where one class is rare."""
    grow_policy: str = choice("depthwise", "depthwise", "lossguide")
    """Where a tree grows next: at the least depth, or where most is gained."""
    max_leaves: int = number(0, whole=True, at_least=0)
    """Of a tree; 0: no limit."""
    scale_pos_weight: float = number(1.0, above=0)
    """Weight of the second of two classes."""


class XGBoost(TableAlgorithm[XGBoostConfig]):
    """XGBoost on a table. Arguments as in `TableAlgorithm`, hyperparameters as in `XGBoostConfig`."""

    name = "xgboost"
    config_class = XGBoostConfig
    module = "xgboost"

    def check(self) -> None:
        """Raise InputError for more actors than ranks, or fewer rows."""
        ranks, rows = self.config.ranks, len(self.train_rows)
        self.require(self.run.workers <= ranks, "workers", self.run.workers, f"at most {ranks}, the number of ranks")
        self.require(rows >= ranks, "ranks", ranks, f"at most {rows}, the number of rows that are learned from")

    def begin(self) -> None:
        """Start the ranks."""
        apart = self.config.nodes == "all"
        self._ranks = Ranks(self.config.ranks, self.run.workers, self.train_rows, self.held_out_rows, apart=apart)

    def boost(self, content: bytes | None, rounds: int) -> tuple[bytes, History]:
        """Add rounds, by all ranks."""
        return self._ranks.boost(content, rounds, self.parameters())

    def end(self) -> None:
        """End the ranks."""
        self._ranks.close()

    def model_of(self, content: bytes, rounds: int) -> FittedModel:
        """A booster."""
        return XGBoostModel(self.table.schema, content, rounds)

    def parameters(self) -> dict[str, Any]:
        """What xgboost is told."""
        own = library_parameters(self.config, self.table.schema.classes, _OBJECTIVES)
        del own["ranks"], own["nodes"]
        # Draws follow from seed and round, so that a fit in pieces draws as one in one piece.
        return own | {"tree_method": "hist", "nthread": 1, "seed": self.run.seed, "seed_per_iteration": True}


_OBJECTIVES = ("reg:squarederror", "binary:logistic", "multi:softprob")
