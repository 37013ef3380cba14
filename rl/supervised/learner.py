"""How a network is learned, in an actor; torch is loaded when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...envs import derive_seed
from ...runtime import ActorHandle, InputError, get, kill, put, remote
from ..lazy import torch
from ..models.own_modules import load_named
from ..threads import limit_threads, limit_torch_threads
from .minibatches import labels_of, minibatches_of
from .network import NetworkSpec
from .rounds import ATTEMPTS, History
from .stream import Stream
from .table import Table

Rows = Table | Stream
LOSSES = ("cross_entropy", "mse", "l1", "huber")
PLACE = "reader"
"""Of a state, what a stream's reader notes: JSON, as bytes."""
_TOGETHER = 1024


@dataclass(frozen=True)
class Recipe:
    """How a network is learned: settings of `SupervisedConfig`, and the seed."""

    loss: str
    class_weights: tuple[float, ...] | None
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int


class NetworkLearner:
    """Actor class: a network, its optimizer, and where its rows come from."""

    def __init__(self, spec: NetworkSpec, recipe: Recipe, train: Rows, held_out: Rows | None) -> None:
        limit_threads(1)
        self._minibatches = minibatches_of(train, recipe.batch_size, recipe.seed)
        self._held_out = held_out
        self._spec, self._recipe = spec, recipe
        self._loss = loss_of(recipe)
        self._standing: bytes | None = None
        self._network: Any = None

    def advance(self, state: bytes | None, done: int, steps: int) -> tuple[bytes, History]:
        """Take so many steps from a state after `done` of them (None: before the first); return the next one, the mean
        loss of the minibatches, and the loss of what is held out."""
        limit_torch_threads(1)
        if state is None or state != self._standing:
            self._restore(state, done)
        self._standing = None  # an error may come in the middle
        losses = torch.zeros(())
        self._network.train()
        for step in range(done, done + steps):
            features, labels = self._minibatches.next()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(self._recipe.seed, "step", step))  # of dropout
                loss = self._loss(self._spec.outputs_of(self._network, features), labels)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            losses += loss.detach()
        told = {"train": {"loss": [losses.item() / steps]}}
        if not np.isfinite(told["train"]["loss"][0]):
            raise InputError(
                f"the loss is {told['train']['loss'][0]} after step {done + steps}: choose a smaller learning_rate; "
                "if the module is your own, look for values that are missing or very large"
            )
        if self._held_out is not None:
            told["eval"] = {"loss": [self._held_out_loss(self._held_out)]}
        self._standing = self._state()
        return self._standing, told

    def _held_out_loss(self, rows: Rows) -> float:
        self._network.eval()
        said, wanted = [], []
        with torch.inference_mode():
            for features, labels in rows.batches(_TOGETHER):
                said.append(self._spec.outputs_of(self._network, torch.from_numpy(np.array(features))))
                wanted.append(labels_of(rows, labels))
            if not said:
                raise InputError(f"{rows.name} has no rows: nothing can be held out of it")
            return float(self._loss(torch.cat(said), torch.cat(wanted)))

    def _restore(self, state: bytes | None, done: int) -> None:
        from safetensors.torch import load as tensors_of

        self._network = self._spec.build(self._recipe.seed)
        named = dict(self._network.named_parameters())
        own = self._recipe
        self._optimizer = torch.optim.AdamW(
            list(named.values()), lr=own.learning_rate, weight_decay=own.weight_decay, foreach=False
        )
        tensors = {} if state is None else tensors_of(state)
        place = tensors.get(PLACE)
        self._minibatches.go_to(done, None if place is None else place.numpy().tobytes())
        if state is None:
            return
        self._network.load_state_dict(part_of(tensors, "model/"))
        moments = part_of(tensors, "adam/")
        for name, parameter in named.items():
            found = part_of(moments, f"{name}/")
            if found:
                self._optimizer.state[parameter] = found

    def _state(self) -> bytes:
        from safetensors.torch import save

        tensors = {f"model/{name}": value for name, value in self._network.state_dict().items()}
        for name, parameter in self._network.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"adam/{name}/{key}"] = value
        place = self._minibatches.place()
        if place is not None:
            tensors[PLACE] = torch.frombuffer(bytearray(place), dtype=torch.uint8)
        return save({name: value.detach().clone().contiguous() for name, value in tensors.items()})


class NetworkActor:
    """The actor, with the rows that it learns from and those that are held out: tables in the object store, or what
    the actor reads by itself, so that whoever dies, what was read since the last state is read again."""

    def __init__(self, spec: NetworkSpec, recipe: Recipe, train: Rows, held_out: Rows | None) -> None:
        actor = remote(max_restarts=-1, max_task_retries=ATTEMPTS)(NetworkLearner)
        self.actor: ActorHandle = actor.remote(spec, recipe, put(train), put(held_out))

    def advance(self, state: bytes | None, done: int, steps: int) -> tuple[bytes, History]:
        """Take steps, however often the actor dies; see `NetworkLearner.advance`."""
        told: tuple[bytes, History] = get(self.actor.advance.remote(state, done, steps))
        return told

    def close(self) -> None:
        """End the actor."""
        kill(self.actor)


def part_of(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Those whose names begin so, without the beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def weights_of(state: bytes) -> bytes:
    """The weights alone of a learner's state, as safetensors; without torch."""
    from safetensors.numpy import load as arrays_of
    from safetensors.numpy import save

    return bytes(save(part_of(arrays_of(state), "model/")))


def loss_of(recipe: Recipe) -> Callable[[Any, Any], Any]:
    """The loss of outputs and labels, a mean over rows."""
    functional = torch.nn.functional
    weights = None if recipe.class_weights is None else torch.tensor(recipe.class_weights)
    named: dict[str, Callable[[Any, Any], Any]] = {
        "cross_entropy": lambda said, labels: functional.cross_entropy(said, labels, weight=weights),
        "mse": functional.mse_loss,
        "l1": functional.l1_loss,
        "huber": functional.huber_loss,
    }
    if recipe.loss in named:
        return named[recipe.loss]
    found: Callable[[Any, Any], Any] = load_named("loss", recipe.loss)
    return found
