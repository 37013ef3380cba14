"""What an algorithm learns with: its model, optimizers, target networks and replay buffer, and ways to draw from them.

This module doesn't import torch (see `lazy`): the driver imports it for its names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import stream
from ...runtime import ActorHandle
from ..clock import Clock
from ..data.batch import Batch
from ..data.columns import action_columns, observation_columns, replay_columns
from ..data.dataset import Dataset
from ..data.dataset_reader import DatasetReader
from ..data.moments import ObservationMoments, RewardScale
from ..data.replay import ReplayBuffer
from ..data.rollout import Rollout
from ..data.sequences import episode_starts, in_sequences, steps_of_sequences
from ..data.tree import Tree, leaves, tree_map
from ..lazy import load, torch
from ..learner_settings import LearnerSettings
from ..models.spec import ModelSpec
from .device import resolve_device
from .minibatch import take_rows, take_sequences, units_of
from .sharded_replay import ShardedReplay
from .shards import DEFAULTS, Descent

if TYPE_CHECKING:
    from torch import Tensor


_OBSERVATIONS = ("observations", "next_observations")
_DRAWN_TOGETHER = 64
"""Updates whose draws from the replay buffer are made together."""


class Learner(Descent):
    """The parts of one training's learner, as before the first update. `spec` makes the model, on `device`; random
    streams come from `seed`; `reward_scale` scales the rewards that are learned from; losses are differentiated as
    `settings` say; `reader` is the actor that reads a dataset for all learners of a group.

    An algorithm's `prepare` adds optimizers, targets and a replay buffer, or a dataset, and in `numbers` what else its
    updates change; its `update` counts `n_updates`, and leaves
    in `advantages` what it made of the rewards, for the message in case that training diverges.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        seed: int,
        device: str,
        reward_scale: RewardScale | None = None,
        settings: LearnerSettings = DEFAULTS,
        reader: ActorHandle | None = None,
    ) -> None:
        super().__init__(settings)
        self._reader = reader
        self._spec, self._seed, self._reward_scale = spec, seed, reward_scale
        self._observation_moments = ObservationMoments(spec.observation_space) if spec.normalized else None
        self.model: Any = load("build_model")(spec, seed=seed, device=resolve_device(device))
        if settings.gradient_checkpointing:
            self.model.keeps_activations = False
        self._target: Any = None
        self._replay: ReplayBuffer | ShardedReplay | None = None
        self._dataset: DatasetReader | None = None
        self.n_updates = 0
        self.numbers: dict[str, float] = {}
        self.iteration = 0
        self._drawn: tuple[tuple[int, int], np.ndarray] | None = None
        self.advantages: np.ndarray | None = None

    # ---- what an algorithm's `prepare` calls

    def adam(self, part: str | None = None, **options: float) -> None:
        """Optimize a part of the model, or all of it, with Adam, as `optimizers[part or "model"]`; options as in
        `FlatAdam`."""
        self._optimize("FlatAdam", part, options)

    def adamw(self, part: str | None = None, *, weight_decay: float, **options: float) -> None:
        """As `adam`, with weights drawn to 0: matrices alone, no norms, no offsets, no embeddings."""
        self._optimize("FlatAdamW", part, {**options, "weight_decay": weight_decay})

    def rmsprop(self, part: str | None = None, **options: float) -> None:
        """As `adam`, with RMSprop; options as in `FlatRMSprop`."""
        self._optimize("FlatRMSprop", part, options)

    def _optimize(self, kind: str, part: str | None, options: Mapping[str, float]) -> None:
        model = self.model
        parts = model.trained if part is None else (part,)
        where = slice(None) if parts is None else model.part(*parts)
        named = [item for item in model.named_parameters() if item[1].requires_grad]
        own = None if part is None else [value for name, value in named if model.belongs(name, part)]
        given: dict[str, Any] = dict(options)
        if "weight_decay" in given:
            given["decayed"] = model.matrices(where.start or 0, where.stop)
        self.optimizers[part or "model"] = load(kind)(
            model.flat[where], model.flat_gradients[where], leaves=own, **given
        )

    @property
    def plain(self) -> Any:
        """The model in numpy, for losses whose gradients are written out; None where it is not plain, or settings ask
        for what torch alone does."""
        return None if self.by_torch else self.model.plain

    def add_target(self) -> None:
        """Keep a second model with the weights of now, as `target`: it changes when the algorithm says so."""
        self._target = load("build_model")(self._spec, device=self.model.flat.device)
        self._target.flat.copy_(self.model.flat)
        self._target.requires_grad_(False)

    def add_replay(self, capacity: int, *, gamma: float, n_step: int = 1, alpha: float | None = None) -> None:
        """Keep transitions in `replay`; arguments as in `ReplayBuffer`."""
        self._replay = ReplayBuffer(self._replay_columns, capacity, gamma=gamma, n_step=n_step, alpha=alpha)

    def add_sharded_replay(self, capacity: int, *, shards: int, gamma: float, n_step: int, alpha: float) -> None:
        """Keep transitions in `replay`, in `shards` actors; arguments as in `ShardedReplay`."""
        columns = self._replay_columns
        self._replay = ShardedReplay(columns, capacity, shards=shards, gamma=gamma, n_step=n_step, alpha=alpha)

    @property
    def _replay_columns(self) -> dict[str, Tree]:
        return replay_columns(self._spec.observation_space, self._spec.action_space)

    def add_dataset(self, name: str, *, capacity: int, rows: int, gamma: float) -> None:
        """Draw minibatches of `rows` transitions from a dataset (see `DatasetReader`); normalized observations are
        normalized by its statistics from now on."""
        spec = self._spec
        self._dataset = DatasetReader(
            Dataset(name),
            capacity=capacity,
            rows=rows,
            stream=self.stream,
            observations=observation_columns(spec.observation_space),
            actions=action_columns(spec.action_space),
            own_actions=self.model.own_actions,
            gamma=gamma,
            reader=self._reader,
        )
        if self._observation_moments is not None:
            for observations in self._dataset.observations():
                self._observation_moments.merge(observations)
            self._normalize()

    # ---- what its `update` calls

    @property
    def target(self) -> Any:
        """The model that `add_target` made."""
        assert self._target is not None, "prepare() has not called add_target"
        return self._target

    @property
    def replay(self) -> ReplayBuffer | ShardedReplay:
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

    def rewards(self, raw: np.ndarray) -> np.ndarray:
        """Rewards as they are learned from: float32, scaled by the statistics so far if rewards are normalized."""
        return raw if self._reward_scale is None else self._reward_scale(raw)

    def tensors(self, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        """Arrays as tensors on the model's device; trees of arrays as trees."""
        device = self.model.flat.device

        def tensor(array: np.ndarray) -> Tensor:
            # What lies in the object store cannot be written, which torch does not know of.
            return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)

        return {name: tree_map(tensor, tree) for name, tree in arrays.items()}

    def minibatches(self, batch: Mapping[str, Any], size: int, epoch: int) -> Iterator[dict[str, Any]]:
        """The rows of `batch`, tensors or arrays, in random order, `size` at a time (the last may be smaller).

        The order comes from the stream ("minibatches", iteration, epoch). One gather per field and epoch; minibatches
        are slices of it. With a memory they are whole sequences, together about `size` rows.
        """
        stream = self.stream("minibatches", self.iteration, epoch)
        if self.model.memory is not None:
            yield from self._minibatches_of_sequences(batch, size, stream)
            return
        columns = dict(batch)
        first = next(leaf for _, leaf in leaves(columns))
        rows = len(first)
        order = stream.permutation(rows)
        if isinstance(first, np.ndarray):
            shuffled = {name: take_rows(column, order) for name, column in columns.items()}
            for start in range(0, rows, size):
                yield {name: column[start : start + size] for name, column in shuffled.items()}
            return
        indices = self.tensors({"order": order})["order"]
        shuffled = tree_map(lambda tensor: tensor.index_select(0, indices), columns)
        parts = tree_map(lambda tensor: iter(tensor.split(size)), shuffled)
        for _ in range(0, rows, size):
            yield tree_map(next, parts)

    def _minibatches_of_sequences(
        self, batch: Mapping[str, Any], size: int, stream: np.random.Generator
    ) -> Iterator[dict[str, Tensor]]:
        order = self.tensors({"order": stream.permutation(units_of(batch))})["order"]
        count = max(1, round(size / self._spec.sequence_length))
        for start in range(0, len(order), count):
            yield take_sequences(batch, order[start : start + count])

    def sequences(self, rollout: Rollout, columns: Batch) -> dict[str, Any]:
        """Columns [T, N, …] of a rollout as tensors [M, …], in the order of the sequences that the model's memory is
        unrolled over; and `rows`, those sequences."""
        length = self._spec.sequence_length
        valid = steps_of_sequences(*rollout.shape, length=length)
        if "resets" in rollout.steps:
            valid = valid[~in_sequences(rollout.steps["resets"], length)[valid]]
        kept = {name: in_sequences(columns[name], length)[valid] for name in columns}
        assert rollout.memories is not None
        memory = rollout.memories.flat()["memory"]
        told = self.tensors({"memory": memory, "starts": episode_starts(rollout, length), "valid": valid})
        inputs = self.model.encode(in_sequences(rollout.steps["observations"], length))
        return self.tensors(kept) | {"rows": load("Sequences")(inputs, **told)}

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

    def sample(self, rows: int, *, beta: float = 1.0, plain: bool = False) -> tuple[dict[str, Any], np.ndarray]:
        """Transitions drawn from the replay buffer, as tensors, observations encoded; and their indices.

        Which ones follows from the number of updates. Columns as in `ReplayBuffer.sample`, without indices. For the
        `plain` model they are arrays, valid until the next are drawn.
        """
        drawn = dict(self.replay.sample(self._uniform(rows), beta=beta))
        drawn["rewards"], indices = self.rewards(drawn["rewards"]), drawn.pop("indices")
        if plain:
            encoded = {name: self.plain.encode(drawn[name], name) for name in _OBSERVATIONS}
            return drawn | encoded, indices
        encoded = {name: self.model.encode(drawn.pop(name)) for name in _OBSERVATIONS}
        return encoded | self.tensors(drawn), indices

    def set_errors(self, indices: np.ndarray, errors: Any) -> None:
        """As the replay buffer's; errors [B] are an array or a tensor."""
        self.replay.set_errors(indices, errors if isinstance(errors, np.ndarray) else errors.cpu().numpy())

    def _uniform(self, rows: int) -> np.ndarray:
        """Numbers [rows] in [0, 1) for this update, from the stream ("replay", number of updates // 64): to begin a
        stream takes as long as to draw hundreds."""
        block, index = divmod(self.n_updates, _DRAWN_TOGETHER)
        if self._drawn is None or self._drawn[0] != (block, rows):
            self._drawn = (block, rows), self.stream("replay", block).random((_DRAWN_TOGETHER, rows))
        return self._drawn[1][index]

    def draw(self, *columns: str) -> dict[str, Tensor]:
        """The next minibatch of the dataset as tensors, observations encoded; columns as in `EpisodeBlock.take`.

        Which one it is follows from the number of updates.
        """
        assert self._dataset is not None, "prepare() has not called add_dataset"
        drawn = self._dataset.sample(self.n_updates, columns)
        seen = {name: self.model.encode(drawn[name]) for name in columns if name.endswith("observations")}
        return seen | self.tensors({name: drawn[name] for name in columns if name not in seen})

    # ---- what the actor calls around an update

    def begin(self, rollout: Rollout) -> None:
        """Count a rollout's rewards, before they are learned from: so the first rollout has a scale of its own."""
        if self._reward_scale is not None and rollout.steps.rows:
            steps = rollout.steps
            ended = steps["terminations"] | steps["truncations"]
            self._reward_scale.merge(steps["rewards"], ended, rollout.transitions)

    def end(self, rollout: Rollout) -> None:
        """Count a rollout's observations, after it was learned from: until then they are seen as they were when it was
        made, so that the probabilities of its actions are those with which it acted."""
        if self._observation_moments is not None and rollout.steps.rows:
            seen = rollout.steps.only(["observations"]).flat()
            if rollout.transitions is not None:
                seen = seen.take(rollout.transitions.reshape(-1))
            self._observation_moments.merge(seen["observations"])
            self._normalize()

    def _normalize(self) -> None:
        assert self._observation_moments is not None
        with torch.no_grad():
            self.model.normalizer.set(self._observation_moments.scales())

    # ---- state

    def state(self) -> dict[str, Any]:
        """All that the next update depends on but the replay buffer's transitions: a tree of arrays and numbers."""
        return {
            "model": self.model.get_parameters(),
            "target": None if self._target is None else self._target.get_parameters(),
            "optimizers": {name: optimizer.state() for name, optimizer in self.optimizers.items()},
            "n_updates": self.n_updates,
            "numbers": dict(self.numbers),
            "observation_moments": None if self._observation_moments is None else self._observation_moments.state(),
            "reward_scale": None if self._reward_scale is None else self._reward_scale.state(),
            "replay": None if self._replay is None else self._replay.state(),
            "dataset": None if self._dataset is None else self._dataset.place(),
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
        self.numbers = dict(state["numbers"])
        if self._observation_moments is not None:
            self._observation_moments.load(state["observation_moments"])
        if self._reward_scale is not None:
            self._reward_scale.load(state["reward_scale"])
        if self._dataset is not None:
            self._dataset.go_to(state["dataset"], self.n_updates)
        if self._replay is not None and state["replay"] is not None:
            self._replay.load(state["replay"], transitions)
