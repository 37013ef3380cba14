"""The base of all models that act between arrays.

Random choices come from noise that is given, drawn from a numpy stream; torch's own generator decides initial weights
only, seeded for them.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...envs import MASK, LeafCodec, codec, part_of
from ..data.columns import action_columns
from .architecture import EncoderChoice
from .encoders import make_encoder
from .flat_module import FlatModule
from .memory import Memory, forget
from .normalizer import Normalizer
from .rows import Parts, Recalled, Rows, Sequences
from .spec import ModelSpec


class Model(FlatModule):
    """A network between two spaces. Subclasses make their parts in `__init__`; then `flatten` is called once."""

    encoder: nn.Module | None
    """What comes first, where all parts share it."""
    memory: Memory | None
    """What comes next."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder, self.memory = None, None
        self.normalizer = Normalizer(spec.observation_space) if spec.normalized else None
        self.actions, self._observations = codec(spec.action_space), codec(spec.observation_space)
        plain = not spec.normalized and self._observations.kind == "Box"
        self.takes_vectors = plain and isinstance(self._observations, LeafCodec) and not self._observations.is_image
        self._leaves = [("/".join(parts), parts, leaf) for parts, leaf in self._observations.leaves()]

    @abstractmethod
    def outputs(self, rows: Rows) -> Tensor:
        """What actions are chosen by, [B, K], for encoded observations."""

    @abstractmethod
    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """Actions [B, …]: the best ones, or drawn ones where `noise` [B, M] is given."""

    @abstractmethod
    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """float32 noise [*rows, M] for `choose`."""

    def encode(self, observations: np.ndarray) -> Tensor | Parts:
        """Observations [B, *shape] as tensors on the model's device: of a space with parts, each under its path.

        A Box becomes [B, numbers] float32, a Discrete a one-hot, a MultiDiscrete one-hots side by side, an image stays
        as bytes [B, *shape] (flat, between 0 and 1, for the encoder "flat"), an action mask becomes [B, K] bool. Copies
        into memory that torch aligns: a product's bits may depend on the alignment of its operands.
        """
        if self.takes_vectors:  # asked for in every step of every rollout
            rows = torch.tensor(observations, device=self.flat.device)
            simple = rows.dim() == 2 and rows.dtype == torch.float32
            return rows if simple else rows.reshape(len(observations), -1).float()
        if isinstance(self._observations, LeafCodec):
            return self.encode_tensors(torch.tensor(observations, device=self.flat.device))
        parts = {path: part_of(observations, parts).copy() for path, parts, _ in self._leaves}  # strides torch takes
        return self.encode_tensors({path: torch.tensor(part, device=self.flat.device) for path, part in parts.items()})

    def encode_tensors(self, observations: Tensor | Parts) -> Tensor | Parts:
        """As `encode`, of observations that are tensors already: [B, *shape], or each part [B, …] by its path."""
        if isinstance(observations, Tensor):
            assert isinstance(self._observations, LeafCodec)
            return self._encode_leaf(self._observations, observations, "")
        return {
            path: observations[path].bool() if parts == (MASK,) else self._encode_leaf(leaf, observations[path], path)
            for path, parts, leaf in self._leaves
        }

    def _encode_leaf(self, leaf: LeafCodec, given: Tensor, path: str) -> Tensor:
        count = given.shape[0]  # not len(…), which would fix the number of rows of a program that is exported
        if leaf.is_discrete:
            choices = (given.long() - torch.tensor(leaf.start, device=given.device)).reshape(count, -1)
            one_hot = [torch.nn.functional.one_hot(choices[:, i], n) for i, n in enumerate(leaf.choices)]
            return torch.cat(one_hot, -1).float()
        if leaf.is_image and self.spec.keeps(leaf):
            return given
        rows = given.reshape(count, -1).float()
        if self.normalizer is not None:
            rows = self.normalizer(rows, path)
        return rows / 255 if leaf.is_image else rows

    def make_encoder(self, chosen: EncoderChoice) -> int:
        """Make the encoder that all parts share; returns the width of the features."""
        self.encoder = make_encoder(self.spec, chosen)
        return self.width(self.encoder)

    def width(self, encoder: nn.Module | None) -> int:
        """Width of the features that an encoder makes."""
        return self._observations.row_size if encoder is None else int(encoder.features)  # type: ignore[arg-type]

    def encoded(self, rows: Rows, encoder: nn.Module | None) -> tuple[Tensor, Tensor | None]:
        """Features [B, F] of rows without memory, and their mask [B, K] bool, None where there is none."""
        features: Any = rows if encoder is None else encoder(rows)
        return features, self.mask(rows)

    @staticmethod
    def mask(rows: Rows) -> Tensor | None:
        """Which outputs are allowed, [B, K] bool; None where all are."""
        if isinstance(rows, Tensor):
            return None
        if isinstance(rows, Recalled):
            return rows.mask
        if isinstance(rows, Sequences):
            mask = Model.mask(rows.inputs)
            return None if mask is None else mask[rows.valid]
        return rows.get(MASK)

    def features(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        """What heads work on, [B, F], and the mask; of sequences all valid steps' side by side."""
        if isinstance(rows, Tensor):
            return rows if self.encoder is None else self.encoder(rows), None
        if isinstance(rows, Recalled):
            return rows.features, rows.mask
        if not isinstance(rows, Sequences):
            return self.encoded(rows, self.encoder)
        assert self.memory is not None
        features, _ = self.encoded(rows.inputs, self.encoder)
        unrolled = self.memory.unroll(features.reshape(*rows.starts.shape, -1), rows.memory, rows.starts)
        return unrolled.flatten(0, 1)[rows.valid], self.mask(rows)

    @staticmethod
    def given(noise: np.ndarray) -> Tensor:
        """Drawn noise as `choose` takes it."""
        return torch.from_numpy(noise)

    def recall(self, rows: Rows, memory: Any) -> tuple[Rows, Any]:
        """Encoded observations of one step with what is remembered, and the memory after it; without a memory, both as
        they are."""
        if self.memory is None:
            return rows, memory
        features, mask = self.encoded(rows, self.encoder)
        output, memory = self.memory.step(features, memory)
        return Recalled(output, mask), memory

    def initial_memory(self, rows: int) -> Any:
        """What is remembered at the beginning of `rows` episodes; None without a memory."""
        return None if self.memory is None else self.memory.initial(rows)

    @staticmethod
    def forget(memory: Any, ended: np.ndarray) -> Any:
        """The memory with nothing of the rows [B] whose episode ended."""
        return forget(memory, torch.from_numpy(ended))

    def environment_actions(self, actions: np.ndarray) -> np.ndarray:
        """Rows of what `env.step` takes, [B, *shape], for actions [B, …] as `choose` gives them."""
        found = self.actions
        if isinstance(found, LeafCodec):
            fits = actions.shape[1:] == found.shape
            return found.to_env(actions if fits else actions.reshape(len(actions), *found.shape))
        rows, at = np.empty(len(actions), found.dtype), 0
        for parts, leaf in found.leaves():
            width = math.prod(leaf.shape)
            part_of(rows, parts)[...] = leaf.to_env(actions[:, at : at + width].reshape(len(actions), *leaf.shape))
            at += width
        return rows

    def environment_tensors(self, actions: Tensor) -> Tensor:
        """As `environment_actions`, of an action space without parts, in torch."""
        found = self.actions
        assert isinstance(found, LeafCodec)
        dtype = torch.from_numpy(np.empty(0, found.dtype)).dtype
        shaped = actions.reshape(-1, *found.shape)
        if found.kind != "Box":
            return shaped.to(dtype) + torch.as_tensor(found.start)
        low, high = (torch.tensor(bound) for bound in found.limits())
        return shaped.clamp(low, high).to(dtype)

    def own_actions(self, actions: np.ndarray) -> np.ndarray:
        """Actions [B, …] as `choose` gives them, for rows of what `env.step` took, [B, *shape]."""
        leaves = [(part_of(actions, parts).astype(np.float64), leaf) for parts, leaf in self.actions.leaves()]
        flat = np.concatenate([(values - leaf.start).reshape(len(actions), -1) for values, leaf in leaves], -1)
        column = action_columns(self.spec.action_space)
        return flat.astype(column.dtype).reshape(len(actions), *column.shape)

    def check_finite(self, observations: np.ndarray, **found: np.ndarray) -> None:
        """Raise ValueError, naming the row, if what the model made of `observations`, arrays [B, …] by their names, is
        not finite."""
        for name, values in found.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                spoiled = int((~torch.isfinite(self.flat)).sum())
                largest = self._largest(observations[row])
                reason = (
                    f"{spoiled} of its {len(self.flat)} weights are not: load an earlier checkpoint"
                    if spoiled
                    else f"the observation has values up to {largest:g}: scale it"
                )
                raise ValueError(f"the policy's {name} for row {row} is not finite ({values[row]}): {reason}")

    def _largest(self, observation: Any) -> float:
        """The largest number in an observation, whatever its sign."""
        values = (np.asarray(part_of(observation, parts), np.float64) for _, parts, _ in self._leaves)
        return max(float(np.abs(value).max()) for value in values)


class MLP(nn.Module):
    """Linear layers with an activation between them: inputs → widths → outputs.

    `gain` None leaves torch's initial weights, uniform in ±1/√inputs; else they are orthogonal, hidden layers with √2
    and the last with `gain`, and biases are zero.
    """

    def __init__(
        self, inputs: int, widths: tuple[int, ...], outputs: int, activation: str, gain: float | None = None
    ) -> None:
        super().__init__()
        sizes = [inputs, *widths, outputs]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self._activation: Any = getattr(torch, activation)
        if gain is not None:
            for layer in layers:
                nn.init.orthogonal_(layer.weight, gain if layer is layers[-1] else math.sqrt(2))
                nn.init.zeros_(layer.bias)
        # Reading parameters through modules takes as long as the products of such small layers.
        self._pairs = [(layer.weight, layer.bias) for layer in layers]

    def forward(self, rows: Tensor) -> Tensor:
        """[B, inputs] → [B, outputs]."""
        *hidden, (weight, bias) = self._pairs
        for hidden_weight, hidden_bias in hidden:
            rows = self._activation(nn.functional.linear(rows, hidden_weight, hidden_bias))
        return nn.functional.linear(rows, weight, bias)

    # No hooks are used here, and to look for them takes as long as a small layer.
    __call__ = forward
