"""What an algorithm learns with: its model, optimizers, target networks and replay buffer, and ways to draw from them.

This module doesn't import torch (see `lazy`): the driver imports it for its names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import stream
from ...runtime import InputError
from ..clock import Clock
from ..data.batch import Batch
from ..data.columns import replay_columns
from ..data.replay import ReplayBuffer
from ..data.tree import tree_map
from ..lazy import load, torch
from ..models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

    from .optimizers import FlatOptimizer


class Learner:
    """The parts of one training's learner, as before the first update. `spec` makes the model, on `device`; random
    streams come from `seed`.

    An algorithm's `prepare` adds optimizers, targets and a replay buffer; its `update` counts `n_updates`, and leaves
    in `advantages` what it made of the rewards, for the message in case that training diverges.
    """

    def __init__(self, spec: ModelSpec, *, seed: int, device: str) -> None:
        self._spec, self._seed = spec, seed
        self.model: Any = load("build_model")(spec, seed=seed, device=_resolve_device(device))
        self._target: Any = None
        self.optimizers: dict[str, FlatOptimizer] = {}
        self._replay: ReplayBuffer | None = None
        self.n_updates = 0
        self.iteration = 0
        self.advantages: np.ndarray | None = None

    # ---- what an algorithm's `prepare` calls

    def adam(self, part: str | None = None, **options: float) -> None:
        """Optimize a part of the model, or all of it, with Adam, as `optimizers[part or "model"]`; options as in
        `FlatAdam`."""
        self._optimize("FlatAdam", part, options)

    def rmsprop(self, part: str | None = None, **options: float) -> None:
        """As `adam`, with RMSprop; options as in `FlatRMSprop`."""
        self._optimize("FlatRMSprop", part, options)

    def _optimize(self, kind: str, part: str | None, options: Mapping[str, float]) -> None:
        model = self.model
        where = slice(None) if part is None else model.part(part)
        own = [value for name, value in model.named_parameters() if part is None or name.split(".")[0] == part]
        self.optimizers[part or "model"] = load(kind)(
            model.flat[where], model.flat_gradients[where], leaves=own, **options
        )

    def add_target(self) -> None:
        """Keep a second model with the weights of now, as `target`: it changes when the algorithm says so."""
        self._target = load("build_model")(self._spec, device=self.model.flat.device)
        self._target.flat.copy_(self.model.flat)
        self._target.requires_grad_(False)

    def add_replay(self, capacity: int, *, gamma: float, n_step: int = 1, alpha: float | None = None) -> None:
        """Keep transitions in `replay`; arguments as in `ReplayBuffer`."""
        spec = self._spec
        columns = replay_columns(spec.observation_space, spec.action_space)
        self._replay = ReplayBuffer(columns, capacity, gamma=gamma, n_step=n_step, alpha=alpha)

    # ---- what its `update` calls

    @property
    def target(self) -> Any:
        """The model that `add_target` made."""
        assert self._target is not None, "prepare() has not called add_target"
        return self._target

    @property
    def replay(self) -> ReplayBuffer:
        """The buffer that `add_replay` made."""
        assert self._replay is not None, "prepare() has not called add_replay"
        return self._replay

    @property
    def has_replay(self) -> bool:
        """Whether there is one."""
        return self._replay is not None

    def stream(self, purpose: str, *indices: int) -> np.random.Generator:
        """The random stream of (run seed, purpose, indices)."""
        return stream(self._seed, purpose, *indices)

    def tensors(self, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        """Arrays as tensors on the model's device; trees of arrays as trees."""
        device = self.model.flat.device

        def tensor(array: np.ndarray) -> Tensor:
            # What lies in the object store cannot be written, which torch does not know of.
            return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)

        return {name: tree_map(tensor, tree) for name, tree in arrays.items()}

    def minibatches(self, batch: Mapping[str, Tensor], size: int, epoch: int) -> Iterator[dict[str, Tensor]]:
        """The rows of `batch` in random order, `size` at a time (the last may be smaller).

        The order comes from the stream ("minibatches", iteration, epoch). One gather per field and epoch; minibatches
        are slices of it.
        """
        rows = len(next(iter(batch.values())))
        order = self.stream("minibatches", self.iteration, epoch).permutation(rows)
        indices = self.tensors({"order": order})["order"]
        shuffled = {name: tensor.index_select(0, indices) for name, tensor in batch.items()}
        for start in range(0, rows, size):
            yield {name: tensor[start : start + size] for name, tensor in shuffled.items()}

    def can_sample(self, clock: Clock, learning_starts: int) -> bool:
        """Whether the replay buffer holds enough to learn from: `learning_starts` environment steps are done, and as
        many transitions are there (if so many fit), also after a resume without a saved buffer."""
        wanted = max(1, min(learning_starts, self.replay.capacity))
        return clock.timesteps >= learning_starts and self.replay.size >= wanted

    def update_target(self, tau: float = 1.0, *parts: str) -> None:
        """Move the target towards the model: θ⁻ ← τ θ + (1 − τ) θ⁻; all of it, or parts that lie side by side."""
        where = self.model.part(*parts) if parts else slice(None)
        with torch.no_grad():
            self.target.flat[where].lerp_(self.model.flat[where], tau)

    def noise(self, rows: int) -> Tensor:
        """Noise [rows, M] of the model's kind, from the stream ("noise", number of updates)."""
        drawn = self.model.draw_noise(self.stream("noise", self.n_updates), (rows,))
        return self.tensors({"noise": drawn})["noise"]

    def sample(self, rows: int, *, beta: float = 1.0) -> tuple[dict[str, Tensor], np.ndarray]:
        """Transitions drawn from the replay buffer, as tensors, observations encoded; and their indices.

        They come from the stream ("replay", number of updates). Columns as in `ReplayBuffer.sample`, without indices.
        """
        drawn = self.replay.sample(rows, self.stream("replay", self.n_updates), beta=beta)
        encoded = {name: self.model.encode(drawn[name]) for name in ("observations", "next_observations")}
        others = self.tensors({name: drawn[name] for name in ("actions", "rewards", "discounts", "weights")})
        return encoded | others, drawn["indices"]

    # ---- state

    def state(self) -> dict[str, Any]:
        """All that the next update depends on but the replay buffer's transitions: a tree of arrays and numbers."""
        return {
            "model": self.model.get_parameters(),
            "target": None if self._target is None else self._target.get_parameters(),
            "optimizers": {name: optimizer.state() for name, optimizer in self.optimizers.items()},
            "n_updates": self.n_updates,
            "replay": None if self._replay is None else self._replay.state(),
        }

    def load(self, state: Mapping[str, Any], transitions: list[Batch]) -> None:
        """Continue from `state()`; `transitions` are what the replay buffer held. Without the buffer's state it stays
        empty, and fills again."""
        self.model.set_parameters(state["model"])
        if self._target is not None:
            self._target.set_parameters(state["target"])
        for name, optimizer in self.optimizers.items():
            optimizer.load(state["optimizers"][name])
        self.n_updates = state["n_updates"]
        if self._replay is not None and state["replay"] is not None:
            self._replay.load(state["replay"], transitions)


def _resolve_device(device: str) -> str:
    """The device to compute on: "auto" is CUDA if there is a GPU. Raises InputError if a device is unknown or
    missing."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        if why.startswith("Expected one of"):  # torch names two dozen kinds of devices
            why = "torch knows no such device; a GPU is 'cuda' or 'cuda:N'"
        raise InputError(f"device is {device!r}, which cannot be used here: {why}. Use 'auto' or 'cpu'") from None
    return device
