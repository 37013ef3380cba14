"""The learners of a network, as the driver sees them: it holds references, and reads weights only to save them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ... import runtime
from ...runtime import engine_name, get, put
from ..clock import Clock
from ..learn.log import LearnerInput, LearnerLog
from ..learner_group import start_learners
from ..run import RECOVERABLE
from ..training_state import TrainingState, Weights
from .batch_reader import BatchReader
from .learner import NetworkLearner, Rows
from .losses import Recipe
from .network import NetworkSpec
from .rounds import History
from .stream import Stream

SNAPSHOT_SECONDS = 2.0
"""Seconds between two snapshots of a learner, at least: what is learned again if it is lost, and the iteration it was
lost in. No bit depends on when they are taken."""
_MODEL, _OPTIMIZER, _PLACE = "model/", "optimizer/", "reader"


class NetworkLearners:
    """The learner, or several, with the rows that they learn from and those that are held out: tables in the object
    store, or what is read while they learn, so that whoever dies, what was read since the last state is read again."""

    def __init__(self, spec: NetworkSpec, recipe: Recipe, train: Rows, held_out: Rows | None) -> None:
        run, self._reader = recipe.run, None
        self._measures = held_out is not None
        if run.most_learners > 1 and isinstance(train, Stream) and engine_name() != "serial":
            reader = runtime.remote(BatchReader).options(num_cpus=0, **RECOVERABLE)
            self._reader = reader.remote(train, recipe.batch_size, run.gradient_shards)
        self.learner = start_learners(NetworkLearner, (spec, recipe, put(train), put(held_out), self._reader), run)
        self._snapshot_at = time.monotonic()

    def advance(self, state: TrainingState | None, steps: int) -> tuple[TrainingState, History]:
        """Take gradient steps from a state (None: before the first), whoever dies; returns the next one, and the mean
        loss of the minibatches and what is measured on what is held out."""
        state = state or TrainingState(
            iteration=0, timesteps=0, weights=Weights(0, put(None)), groups=(), learner=LearnerLog(), recent=()
        )
        done = state.timesteps + steps
        due = time.monotonic() - self._snapshot_at >= SNAPSHOT_SECONDS
        update = self.learner.start(state, LearnerInput((), Clock(state.timesteps, done)), due)
        weights, log, metrics = self.learner.finish(update)
        if due:
            self._snapshot_at = time.monotonic()
        state = replace(state, iteration=state.iteration + 1, timesteps=done, weights=weights, learner=log)
        history: History = {}
        for name, value in metrics.items():
            part, _, tag = name.partition("/")
            history.setdefault(part, {})[tag] = [value]
        if self._measures:
            history["eval"] = {name: [value] for name, value in self.learner.ask(state, "measure").items()}
        return state, history

    def state_bytes(self, state: TrainingState) -> bytes:
        """All that the next step depends on, as safetensors."""
        own, _ = self.learner.snapshot(state)
        arrays = {_MODEL + name: value for name, value in own["model"].items()}
        arrays |= {_OPTIMIZER + name: np.asarray(value) for name, value in own["optimizer"].items()}
        if own["place"] is not None:
            arrays[_PLACE] = np.frombuffer(own["place"], np.uint8)
        return _save(arrays)

    def close(self) -> None:
        """End the actors."""
        self.learner.close()
        if self._reader is not None:
            runtime.kill(self._reader)


def state_of(content: bytes, steps: int, iteration: int) -> TrainingState:
    """The state that `NetworkLearners.state_bytes` wrote after so many steps and iterations."""
    arrays = load(content)
    model, optimizer = part_of(arrays, _MODEL), part_of(arrays, _OPTIMIZER)
    own = {
        "model": model,
        "optimizer": {name: int(value) if value.ndim == 0 else value for name, value in optimizer.items()},
        "step": steps,
        "place": arrays[_PLACE].tobytes() if _PLACE in arrays else None,
        "replay": None,
    }
    weights = Weights(iteration, put(model))
    log = LearnerLog(iteration, put(own))
    return TrainingState(iteration=iteration, timesteps=steps, weights=weights, groups=(), learner=log, recent=())


def weights_from(content: bytes) -> Weights:
    """Weights that predict, of the file of a model."""
    return Weights(0, put(load(content)))


def weights_bytes(weights: Weights) -> bytes:
    """The file of a model: its weights as safetensors."""
    return _save(get(weights.ref))


def part_of(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Those whose names begin so, without the beginning."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _save(arrays: Mapping[str, np.ndarray]) -> bytes:
    return bytes(save({name: np.asarray(value, order="C") for name, value in arrays.items()}))
