"""The gradient of a minibatch's loss as the sum of its shards'.

A loss that is a mean over rows is Σ_s m_s / M · loss_s over shards of m_s of its M rows. Each shard's gradient is
computed as that of a batch of its own, and they are added in a fixed tree: its bits follow from the number of shards,
not from who computes which. What the loss tells beside is put together likewise: numbers by the same weighted sum,
columns of rows end to end.

This module doesn't import torch (see `lazy`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lazy import torch
from ..learner_settings import LearnerSettings
from .minibatch import cut, rows_of, units_of
from .reduction_tree import even_parts, total

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.plain import KnownLoss
    from .optimizers import FlatOptimizer, Share

Told = dict[str, Any]
"""What a loss tells beside its value, without gradients: numbers [], means over its rows; columns of rows [m, …].
Tensors; where gradients are written out also Python's numbers, and arrays."""
LossOf = Callable[[dict[str, Any]], tuple["Tensor | KnownLoss", Told]]
"""Rows of a minibatch → their mean loss, and what it tells."""
Packed = tuple[int, tuple[str, ...], np.ndarray, dict[str, np.ndarray]]
"""Of a shard's loss: the shard, names of the numbers that it tells, the numbers, and the columns."""
Pieces = Sequence[tuple[int, Any]]
"""A flat gradient in pieces, as tensors or arrays: where each begins, and its numbers."""
Gather = Callable[["ShardedLoss"], Pieces]
"""How the gradients of all shards are summed, and by whom."""
_LOSS = "the loss itself"
_SHAPES = 64
"""Shapes that one function is compiled for, at most."""
DEFAULTS = LearnerSettings()


class ShardedLoss:
    """The loss of one minibatch in shards: what each of them gives is computed when it is asked for."""

    def __init__(self, optimizer: FlatOptimizer, batch: Mapping[str, Any], loss_of: LossOf, shards: int) -> None:
        self._optimizer, self._batch, self._loss_of = optimizer, batch, loss_of
        self.shards, self.size = shards, len(optimizer.gradients)
        self._parts = even_parts(units_of(batch), shards)
        self.keep: Callable[[Tensor], Tensor] = torch.Tensor.clone
        """How a shard's gradient is kept while that of the next one is computed."""
        self.told: dict[int, Told] = {}
        """Of the shards that are known: numbers weighted by the shard's share of the rows, columns as they are."""

    @property
    def gradients(self) -> Tensor:
        """The gradient that was computed last, flat."""
        return self._optimizer.gradients

    def is_empty(self, shard: int) -> bool:
        """Whether it has no rows: it adds nothing."""
        start, stop = self._parts[shard]
        return start == stop

    def gradient(self, shard: int) -> Tensor | None:
        """The shard's share of the gradient, a tensor of its own; None of an empty one. Notes what its loss tells."""
        if self.is_empty(shard):
            return None
        rows = cut(self._batch, *self._parts[shard])
        weight = rows_of(rows) / rows_of(self._batch)
        loss, told = self._loss_of(rows)
        self._optimizer.differentiate(loss * weight)
        tensors = {name: torch.as_tensor(value) for name, value in (told | {_LOSS: loss.detach()}).items()}
        self.told[shard] = {name: value * weight if value.dim() == 0 else value for name, value in tensors.items()}
        return self.keep(self._optimizer.gradients)

    def packed(self, shards: Sequence[int]) -> list[Packed]:
        """What the losses of shards tell, as arrays."""
        found = []
        for shard in shards:
            told = {name: value.cpu().numpy() for name, value in self.told.get(shard, {}).items()}
            names = tuple(name for name, value in told.items() if value.ndim == 0)
            columns = {name: value for name, value in told.items() if value.ndim}
            found.append((shard, names, np.array([told[name] for name in names], np.float32), columns))
        return found

    def unpack(self, packed: Sequence[Packed]) -> None:
        """Note what the losses of shards tell, as `packed` has it."""
        device = self._optimizer.gradients.device
        for shard, names, numbers, columns in packed:
            told = {name: torch.tensor(value, device=device) for name, value in columns.items()}
            self.told[shard] = dict(zip(names, torch.tensor(numbers, device=device), strict=True)) | told

    def finish(self, pieces: Pieces) -> Told:
        """Take over the sum of all shards' gradients; returns what the losses of all shards tell, which is known."""
        told = [self.told[shard] for shard in range(self.shards) if not self.is_empty(shard)]
        numbers = [name for name, value in told[0].items() if value.dim() == 0]

        def numbers_of(shard: int) -> Tensor | None:
            return None if self.is_empty(shard) else torch.stack([self.told[shard][name] for name in numbers])

        sums = total((0, self.shards), {}, numbers_of, torch.add)
        assert sums is not None, "a minibatch has rows"
        columns = {name: torch.cat([each[name] for each in told]) for name in told[0] if name not in numbers}
        found = dict(zip(numbers, sums, strict=True)) | columns
        self._optimizer.take_gradient(pieces, found.pop(_LOSS))
        return found


def alone(loss: ShardedLoss) -> Pieces:
    """The sum of the gradients of all shards, computed here."""
    gradient = total((0, loss.shards), {}, loss.gradient, torch.Tensor.add_)
    assert gradient is not None, "a minibatch has rows"
    return [(0, gradient)]


def differentiate(
    optimizer: FlatOptimizer, batch: dict[str, Any], loss_of: LossOf, shards: int, gather: Gather = alone
) -> Told:
    """Leave the gradient of a minibatch's loss in the optimizer, as `gather` puts it together; returns what the loss
    tells. One shard is the minibatch as it is."""
    if shards == 1 and gather is alone:
        loss, told = loss_of(batch)
        optimizer.differentiate(loss)
        return told
    sharded = ShardedLoss(optimizer, batch, loss_of, shards)
    return sharded.finish(gather(sharded))


class Descent:
    """Minibatches' losses are computed as `settings` say, in shards, and descended on by `optimizers`."""

    def __init__(self, settings: LearnerSettings = DEFAULTS) -> None:
        self._shards, self._precision = settings.gradient_shards, settings.precision
        self._compiles = settings.compile
        self.by_torch = self._compiles or self._precision != "float32"
        """Whether settings ask for what torch alone does: no gradient that is written out by hand takes its place."""
        self.takes_whole = self._shards == 1 and not self.by_torch
        """Whether a loss is given all rows of a minibatch at once, and its code may do what torch cannot compile."""
        self.gather: Gather = alone
        """How the gradients of shards are put together."""
        self.optimizers: dict[str, FlatOptimizer] = {}

    def differentiate(self, batch: dict[str, Any], loss_of: LossOf, part: str = "model") -> Told:
        """Make the gradient of a minibatch's loss that of `optimizers[part]`, whose `step` is then to be taken.

        `loss_of` is given rows of `batch` (all of its columns are cut alike: in `gradient_shards`, or not at all) and
        returns their mean loss, and tensors by name without gradients, which this returns: means over rows [], put
        together as the loss is, and columns of rows [m, …], joined. What is a function of the whole minibatch, such as
        the deviation of its advantages, belongs into `batch`.
        """
        optimizer = self.optimizers[part]
        return differentiate(
            optimizer, batch, self._precisely(self.compiled(loss_of), optimizer), self._shards, self.gather
        )

    def minimize(
        self,
        batch: dict[str, Any],
        loss_of: LossOf,
        part: str = "model",
        *,
        learning_rate: float,
        max_grad_norm: float | None = None,
    ) -> Told:
        """`differentiate`, and the step."""
        told = self.differentiate(batch, loss_of, part)
        self.optimizers[part].step(learning_rate=learning_rate, max_grad_norm=max_grad_norm)
        return told

    def share(self, share: Share | None) -> None:
        """Let optimizers keep their moments as `FlatOptimizer.share` says."""
        for optimizer in self.optimizers.values():
            optimizer.share(share)

    def in_precision(self, device: Any) -> contextlib.AbstractContextManager[Any]:
        """In it, what is computed is computed as losses are."""
        if self._precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, getattr(torch, self._precision))

    def compiled(self, function: Any) -> Any:
        """A function of tensors, compiled where settings say so: for each of their shapes by itself, so that its bits
        follow from the shapes, whatever else this process has seen. One that would be compiled without end raises."""
        if not self._compiles:
            return function
        import torch._dynamo.config as compiling

        compiling.recompile_limit, compiling.fail_on_recompile_limit_hit = _SHAPES, True
        return torch.compile(function, dynamic=False)

    def _precisely(self, loss_of: LossOf, optimizer: FlatOptimizer) -> LossOf:
        if self._precision == "float32":
            return loss_of

        def in_precision(rows: dict[str, Any]) -> tuple[Tensor, Told]:
            with self.in_precision(optimizer.gradients.device):
                loss, told = loss_of(rows)
            assert isinstance(loss, torch.Tensor), "a gradient that is written out has no precision: ask by_torch"
            half = getattr(torch, self._precision)
            return loss.float(), {name: each.float() if each.dtype == half else each for name, each in told.items()}

        return in_precision
