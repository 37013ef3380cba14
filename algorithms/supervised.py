"""Supervised learning: a network that predicts a column of a table or a stream, by descending on minibatches.

    for each round: draw the next minibatch of the epoch; descend on its mean loss

A round is a gradient step. Which rows it learns from is a function of seed and step, or of a stream its plan; what
dropout leaves out is one of seed and step. So a fit that is killed or resumed in the middle of an epoch goes on with
the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..rl import (
    BoostingConfig,
    FittedModel,
    History,
    NetworkFitSettings,
    NetworkLearners,
    NetworkModel,
    NetworkSpec,
    Recipe,
    Stream,
    Table,
    TableAlgorithm,
    TableSchema,
    TrainingState,
    Weights,
    balanced_weights,
    choice,
    chosen_loss,
    number,
    read_rows,
    state_of,
    weights_bytes,
    weights_from,
)
from ..runtime import engine_name


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(BoostingConfig):
    """Hyperparameters of supervised learning.

    Raises:
        InputError: a value that cannot work.
    """

    rounds_per_iteration: int = number(100, whole=True, at_least=1)
    """Gradient steps between two measurements of what is held out: how fine the curve is."""
    early_stopping_rounds: int | None = number(None, whole=True, at_least=1, optional=True)
    """End after so many gradient steps in which the loss of what is held out got no lower; the weights that were best
    predict."""
    module: str = "mlp"
    """The network: mlp, or package.module:Class of your own, which takes features [B, F] (NaN where missing; of
    input_shape, if it is given, or as the one column of tensors) and gives [B, classes], or [B, 1] of a quantity."""
    module_kwargs: Mapping[str, Any] = field(default_factory=dict, metadata={"example": '{"net_arch": [128, 128]}'})
    """Arguments of its constructor; mlp takes net_arch, embedding and dropout."""
    input_shape: str = ""
    """Shape of a row that is no vector, such as 1,8,8."""
    loss: str = "auto"
    """cross_entropy, mse, l1, huber, or package.module:function of outputs and labels. auto: cross_entropy of classes,
    mse of a quantity."""
    class_weight: str = choice("none", "none", "balanced")
    """balanced: cross_entropy counts each class as much as any other, however rare it is."""
    batch_size: int = number(64, whole=True, at_least=1)
    """Rows of a minibatch."""
    described_rows: int = number(10_000, whole=True, at_least=1)
    """Rows of a stream that are read first, to see which classes and categories it has, and how large its numbers
    are."""
    optimizer: str = choice("adamw", "adamw", "adam", "sgd")
    """What descends: adamw, adam, or sgd with momentum."""
    learning_rate: float = number(1e-3, above=0)
    """Step size of the optimizer."""
    weight_decay: float | None = number(None, at_least=0, optional=True)
    """How much weights are drawn to 0: with adamw in parts of the step size, with sgd as a part of the gradient.
    Default: 0.01 with adamw, else 0."""
    momentum: float = number(0.9, at_least=0, at_most=1)
    """Part of the last step that sgd goes again."""

    def __post_init__(self) -> None:
        if not isinstance(self.input_shape, str):
            object.__setattr__(self, "input_shape", ",".join(map(str, self.input_shape)))
        super().__post_init__()


class Supervised(TableAlgorithm[SupervisedConfig]):
    """A network on a table, or on a `shoal.data.Dataset`, which is streamed: its batches are learned from in the order
    of its plan, epoch after epoch. Arguments as in `TableAlgorithm`, hyperparameters as in `SupervisedConfig`."""

    name = "supervised"
    config_class = SupervisedConfig
    run_class = NetworkFitSettings
    run: NetworkFitSettings
    module = "torch"
    state_file = "training.safetensors"
    import_paths = ("module", "loss")
    usual_rounds = 2000

    def read(self, dataset: Any, schema: TableSchema | None = None) -> Table | Stream:
        """A stream of a Dataset, or a table."""
        return read_rows(dataset, self.run.label, self.run.task, schema, described_rows=self.config.described_rows)

    def check(self) -> None:
        """Raise InputError for settings that do not go together, an unknown loss or module, or a shape that rows do not
        have."""
        config, run, patience, decay = (
            self.config,
            self.run,
            self.config.early_stopping_rounds,
            self.config.weight_decay,
        )
        self.require(run.workers == 1, "workers", run.workers, "1: several share the gradients by learners=2")
        run.check_engine(engine_name())
        by_itself = "False: which of its parts to compute again, a module says by itself"
        self.require(not run.gradient_checkpointing, "gradient_checkpointing", True, by_itself)
        measured = patience is None or self.held_out_rows is not None
        self.require(measured, "early_stopping_rounds", patience, "none where no rows are held out")
        decays = not decay or config.optimizer != "adam"
        self.require(decays, "weight_decay", decay, "0 with optimizer 'adam': 'adamw' is what decays")
        loss, balanced = chosen_loss(config.loss, self.table.schema.classes), config.class_weight == "balanced"
        counts = not balanced or loss == "cross_entropy"
        self.require(counts, "class_weight", "balanced", f"'none' with loss {loss!r}: it is for cross_entropy")
        self._spec = NetworkSpec.of(self.train_rows, config.module, config.module_kwargs, config.input_shape)
        self._spec.check()
        self._recipe = Recipe(
            loss=loss,
            class_weights=balanced_weights(self.train_rows.class_counts()) if balanced else None,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            optimizer=config.optimizer,
            weight_decay=(0.01 if config.optimizer == "adamw" else 0.0) if decay is None else decay,
            momentum=config.momentum,
            run=run,
        )

    def begin(self) -> None:
        """Start the learners."""
        self._learners = NetworkLearners(self._spec, self._recipe, self.train_rows, self.held_out_rows)

    def boost(self, content: TrainingState | None, rounds: int) -> tuple[TrainingState, History]:
        """Take gradient steps."""
        return self._learners.advance(content, rounds)

    def end(self) -> None:
        """End the learners."""
        self._learners.close()

    def predicting(self, content: TrainingState) -> Weights:
        """The weights of a state."""
        return content.weights

    def model_of(self, predicting: Weights, rounds: int) -> FittedModel:
        """The network."""
        return NetworkModel(self.table.schema, weights_bytes(predicting), rounds, self._spec.to_json())

    def state_bytes(self, content: TrainingState) -> bytes:
        """Weights, moments, and where the reader is."""
        self.started()
        return self._learners.state_bytes(content)

    def from_files(self, model: bytes, state: bytes | None, timesteps: int) -> tuple[TrainingState, Weights]:
        """The state, and the weights that predict."""
        assert state is not None
        iteration = -(-timesteps // self.config.rounds_per_iteration)
        return state_of(state, timesteps, iteration), weights_from(model)
