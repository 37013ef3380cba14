"""How a network is learned, in an actor, alone or as one of several; torch is loaded when needed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import derive_seed
from ...runtime import ActorHandle, InputError, ObjectRef, method
from ..chaos import Death, dying
from ..clock import Clock
from ..divergence import TrainingDivergedError
from ..lazy import load, torch
from ..learn.device import resolve_device
from ..learn.log import LearnerLog
from ..learn.lost import StateLostError
from ..learn.shards import Descent, Gather, LossOf
from ..threads import limit_threads, limit_torch_threads
from .losses import Recipe, loss_of, row_weights
from .metrics import measured
from .minibatches import Minibatch, labels_of, minibatches_of
from .network import NetworkSpec
from .stream import Stream
from .table import Table

if TYPE_CHECKING:
    from torch import Tensor

    from ..learn.optimizers import Share
    from .flat_network import FlatNetwork

Rows = Table | Stream
_TOGETHER = 1024
_STATISTIC = "statistic "


class NetworkLearner:
    """Actor class, with the methods of `LearnerActor`: a network, its optimizer, and where its rows come from.

    An update takes the gradient steps from its clock's time to the clock's end. `reader` is the actor that reads a
    stream for all learners, if there are several.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        recipe: Recipe,
        train: Rows,
        held_out: Rows | None,
        reader: ActorHandle | None,
    ) -> None:
        run = recipe.run
        limit_threads(run.threads)
        self._spec, self._recipe, self._run, self._held_out = spec, recipe, run, held_out
        self._minibatches = minibatches_of(train, recipe.batch_size, run.seed, reader)
        self._loss = loss_of(recipe)
        self._descent = Descent(replace(run, compile=False))  # the module is compiled, not what reads its rows
        self._network: FlatNetwork
        self._iteration = -1  # nothing was begun: what is wrong with the module, a call is to tell

    def describe(self) -> tuple[None, None, str]:
        """As `LearnerActor.describe`: the device alone."""
        return None, None, resolve_device(self._run.device)

    def gather_by(self, gather: Gather) -> None:
        """As `LearnerActor.gather_by`."""
        self._descent.gather = gather

    def share(self, share: Share | None) -> None:
        """As `LearnerActor.share`."""
        self._descent.share(share)

    @method(num_returns=4)
    def update(
        self,
        rollouts: Sequence[ObjectRef],
        iteration: int,
        clock: Clock,
        snapshot: bool,
        death: Death | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any] | None, None, dict[str, float]]:
        """As `LearnerActor.update`, without rollouts; weights are all that predicting depends on, by name.

        Raises TrainingDivergedError where the loss is not finite.
        """
        self._require(iteration)
        started = time.perf_counter()
        with dying(death):
            loss = self._advance(clock)
        told = {"train/loss": loss, "time/update_seconds": time.perf_counter() - started}
        return self._network.arrays(), self._state() if snapshot else None, None, told

    @method(num_returns=2)
    def snapshot(self, iteration: int, inserted: int) -> tuple[dict[str, Any], None]:
        """As `LearnerActor.snapshot`."""
        self._require(iteration)
        return self._state(), None

    def restore(self, log: LearnerLog) -> None:
        """As `LearnerActor.restore`."""
        self._iteration = -1
        self._begin(log.held()[0])
        self._iteration = log.iteration
        for given in log.inputs:
            self._advance(given.clock)

    def measure(self, iteration: int) -> dict[str, float]:
        """The loss of what is held out, and the metrics that are wanted of it."""
        self._require(iteration)
        assert self._held_out is not None
        self._network.module.eval()
        said, wanted = [], []
        with torch.inference_mode():
            for features, labels in self._held_out.batches(_TOGETHER):
                rows = torch.from_numpy(np.array(features)).to(self._device)
                said.append(self._spec.outputs_of(self._network.module, rows).cpu())
                wanted.append(labels_of(self._held_out, labels))
            if not said:
                raise InputError(f"{self._held_out.name} has no rows: nothing can be held out of it")
            outputs, every = torch.cat(said), torch.cat(wanted)
            loss = float(self._loss(outputs, every, row_weights(self._recipe, every)))
            predictions = outputs.softmax(1) if outputs.dim() == 2 else outputs
        return {"loss": loss, **measured(self._run.metrics, predictions.numpy(), every.numpy())}

    # ---- inside

    @property
    def _device(self) -> Any:
        return self._network.flat.device

    def _require(self, iteration: int) -> None:
        limit_torch_threads(self._run.threads)
        if self._iteration != iteration:
            raise StateLostError(f"the learner is at iteration {self._iteration}, not at {iteration}")

    def _begin(self, state: Mapping[str, Any] | None) -> None:
        """Stand where a state was taken; None: before the first step."""
        limit_torch_threads(self._run.threads)
        recipe, module = self._recipe, self._spec.build(self._run.seed)
        network = self._network = load("FlatNetwork")(module, resolve_device(self._run.device))
        self._forward = Descent(self._run).compiled(module)
        kind, options = {
            "adam": ("FlatAdam", {}),
            "adamw": ("FlatAdamW", {"weight_decay": recipe.weight_decay}),
            "sgd": ("FlatSGD", {"weight_decay": recipe.weight_decay, "momentum": recipe.momentum}),
        }[recipe.optimizer]
        self._descent.optimizers["model"] = load(kind)(network.flat, network.gradients, **options)
        if state is None:
            self._minibatches.go_to(0, None)
            return
        network.take_arrays(state["model"])
        self._descent.optimizers["model"].load(state["optimizer"])
        self._minibatches.go_to(state["step"], state["place"])

    def _state(self) -> dict[str, Any]:
        optimizer = self._descent.optimizers["model"]
        return {
            "model": self._network.arrays(),
            "optimizer": optimizer.state(),
            "step": optimizer.steps,
            "place": self._minibatches.place(),
            "replay": None,
        }

    def _advance(self, clock: Clock) -> float:
        """Take an update's steps; returns the mean loss of their minibatches."""
        iteration, self._iteration = self._iteration, -1  # an error may come in the middle
        self._network.module.train()
        for step in range(clock.timesteps, clock.total_timesteps):
            self._descend(step)
        loss = self._descent.optimizers["model"].take_sums()[0] / (clock.total_timesteps - clock.timesteps)
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss is {loss} after step {clock.total_timesteps}: choose a smaller learning_rate; if the module "
                "is your own, look for values that are missing or very large"
            )
        self._iteration = iteration + 1
        return loss

    def _descend(self, step: int) -> None:
        minibatch, before = self._minibatches.next(), self._network.statistics()
        batch = {"index": torch.arange(minibatch.size)}
        weights = row_weights(self._recipe, minibatch.labels)
        if weights is not None:
            batch["weights"] = weights.to(self._device)
        rate = self._recipe.learning_rate
        told = self._descent.minimize(batch, self._loss_of(step, minibatch, before), learning_rate=rate)
        each = {name.removeprefix(_STATISTIC): told[name] for name in told if name.startswith(_STATISTIC)}
        self._network.take_statistics(load("joined_statistics")(each, told["shares"]))

    def _loss_of(self, step: int, minibatch: Minibatch, before: dict[str, Tensor]) -> LossOf:
        network = self._network

        def loss_of(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            start, count = int(rows["index"][0]), len(rows["index"])
            features, labels = (part.to(self._device) for part in minibatch.rows(start, start + count))
            network.take_statistics(before)  # each shard begins with the same ones, whoever computes it
            with seeded(self._device, derive_seed(self._run.seed, "step", step, start)):  # of dropout
                said = self._spec.outputs_of(self._forward, features)
            loss = self._loss(said, labels, rows.get("weights"))
            after = {f"{_STATISTIC}{name}": value[None] for name, value in network.statistics().items()}
            return loss, {"shares": torch.tensor([count / minibatch.size], device=self._device), **after}

        return loss_of


@contextmanager
def seeded(device: Any, seed: int) -> Iterator[None]:
    """Let torch draw from a stream of its own, on the CPU and on `device`."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
