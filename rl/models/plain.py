"""Actor-critics of plain vectors in numpy: forward and backward pass written out, on the memory of torch's tensors.

A network of two layers of 64 is not bound by its products but by what lies around them: torch's cost per operation,
the walk of its gradients through each of them, and its `tanh`, which takes twelve times as long as numpy's. So a
minibatch of 64 rows takes a third of the time, one of 512 half. Models that are not plain, and those on another device,
are torch's own operations; a test holds the gradients of both equal.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any, Protocol

import numpy as np
import torch

from ..data.tree import as_array
from .distributions import HALF_LOG_2PI
from .layout import ParameterLayout

_Memory = dict[tuple[int, int, int], np.ndarray]
"""Arrays by their numbers of rows and columns, and which of these it is."""

_WORKSPACES = 8
"""Numbers of rows, of a minibatch, a group and so on, that a network keeps memory for."""
_SIDE_BY_SIDE = 64
"""Rows that a bias is added to in one go, at most."""
_SHARED = 4 * _WORKSPACES
"""Arrays that networks keep together."""


class PlainMLP:
    """The layers `name`.layers.0, 1, … of flat float32 `weights`, with `activation` ("tanh" or "relu") between them;
    gradients are written into the flat `gradients`. What a backward pass needs for its length is in memory that is
    `shared` with other networks, if they are given the same."""

    def __init__(
        self,
        layout: ParameterLayout,
        name: str,
        activation: str,
        weights: np.ndarray,
        gradients: np.ndarray,
        *,
        shared: _Memory | None = None,
    ) -> None:
        parameters, slopes = layout.views(weights), layout.views(gradients)
        count = sum(key.startswith(f"{name}.layers.") for key in layout.shapes) // 2
        names = [(f"{name}.layers.{layer}.weight", f"{name}.layers.{layer}.bias") for layer in range(count)]
        self._weights, self._biases = ([parameters[pair[part]] for pair in names] for part in (0, 1))
        self._last = self._weights[-1].T
        self._slopes = [(slopes[weight], slopes[bias]) for weight, bias in names]
        self._is_tanh = activation == "tanh"
        self._spaces: dict[int, _Workspace] = {}
        self._ready: _Workspace | None = None
        self._gradients = {} if shared is None else shared
        self._given = [np.empty((0, 0), np.float32)]

    def forward(self, rows: np.ndarray) -> np.ndarray:
        """[B, inputs] → [B, outputs], a new array; `backward` then is of these rows."""
        space, given = self._space(len(rows)), [rows]
        if space is not self._ready:
            space.repeat_biases()
        for weight, out, lines, bias, zeros in space.hidden:
            rows.dot(weight, out)  # the bits of matmul, in half of its time for a few rows
            np.add(lines, bias, lines)
            if self._is_tanh:
                np.tanh(out, out)
            else:
                np.maximum(out, zeros, out=out)  # with the number 0 it takes up to seven times as long
            rows = out
            given.append(rows)
        self._given = given
        outputs = rows.dot(self._last)
        lines = outputs.reshape(space.lines)
        np.add(lines, space.last_bias, lines)
        return outputs

    def backward(self, gradient: np.ndarray) -> None:
        """Write the gradients of all parameters, for that of the outputs, [B, outputs]. Once for each `forward`."""
        space = self._space(len(gradient))
        for layer in range(len(self._slopes) - 1, -1, -1):
            given, (of_weight, of_bias) = self._given[layer], self._slopes[layer]
            gradient.T.dot(given, of_weight)
            space.ones.dot(gradient, of_bias)  # takes a fourth of the time of a sum over rows
            if layer:
                gradient = gradient.dot(self._weights[layer], space.gradients[layer - 1])
                slope = np.subtract(1, np.multiply(given, given, given), given) if self._is_tanh else given > 0
                gradient *= slope

    @contextlib.contextmanager
    def unchanging(self, rows: int) -> Iterator[None]:
        """In it the weights stay as they are: what `forward` makes of them for so many rows is kept."""
        space = self._space(rows)
        space.repeat_biases()
        self._ready = space
        try:
            yield
        finally:
            self._ready = None

    def input_gradient(self, rows: np.ndarray, start: int) -> np.ndarray:
        """Of a network of one output, its gradients for inputs from `start` on, [m, …], in these m rows (integers) of
        the last `forward`."""
        weights = [self._weights[0][:, start:], *self._weights[1:]]
        gradient = weights.pop()
        for layer in range(len(weights), 0, -1):
            given = self._given[layer].take(rows, 0)
            gradient = gradient * (1 - given * given if self._is_tanh else given > 0)
            gradient = gradient @ weights[layer - 1]
        return gradient if len(self._weights) > 1 else gradient.repeat(len(rows), 0)

    def _space(self, rows: int) -> _Workspace:
        space = self._spaces.get(rows)
        if space is None:
            if len(self._spaces) == _WORKSPACES:
                self._spaces.clear()
            space = self._spaces[rows] = _Workspace(rows, self._weights, self._biases, self._gradients)
        return space


class _Workspace:
    """Where so many rows are computed. malloc gives what is as large as a hidden layer of 512 × 64 back to the system
    each time, and to get it again takes longer than its product. Gradients are in `shared` memory: so those of two
    networks of 64 × 64 and 512 rows fit into a processor's second cache, with what both have seen.

    A bias is added to lines of several rows each, in which it is repeated: numpy takes longer to add it to each row by
    itself, and more than twice as long where all rows are one line, of the shape of the repeated bias.
    """

    def __init__(self, rows: int, weights: list[np.ndarray], biases: list[np.ndarray], shared: _Memory) -> None:
        side_by_side = next(count for count in range(min(rows, _SIDE_BY_SIDE), 0, -1) if rows % count == 0)
        self._repeated = [(np.empty((side_by_side, len(bias)), np.float32), bias) for bias in biases]
        self.hidden: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        """Of each hidden layer its weights, transposed; what it gives, [rows, width]; the same as lines; the bias of a
        line; zeros."""
        self.gradients: list[np.ndarray] = []
        for layer, (repeated, bias) in enumerate(self._repeated[:-1]):
            out = aligned(rows, len(bias))
            lines, zeros = out.reshape(-1, repeated.size), np.zeros((rows, len(bias)), np.float32)
            self.hidden.append((weights[layer].T, out, lines, repeated.reshape(1, -1), zeros))
            self.gradients.append(_kept(shared, rows, len(bias), layer))
        self.last_bias = self._repeated[-1][0].reshape(1, -1)
        self.lines = rows // side_by_side, self.last_bias.size
        self.ones = np.ones(rows, np.float32)

    def repeat_biases(self) -> None:
        """Take over the biases of now."""
        for repeated, bias in self._repeated:
            np.copyto(repeated, bias)


def _kept(shared: _Memory, rows: int, width: int, layer: int) -> np.ndarray:
    key = rows, width, layer
    if key not in shared:
        if len(shared) == _SHARED:
            shared.clear()
        shared[key] = aligned(rows, width)
    return shared[key]


def aligned(*shape: int) -> np.ndarray:
    """A float32 array as torch aligns it: a product's bits may depend on that."""
    return torch.empty(shape, dtype=torch.float32).numpy()


class PlainDistribution(Protocol):
    """Actions [B, …] as a distribution sees them, and what follows from gradients of that."""

    log_probs: np.ndarray
    """log π(action), [B]."""
    entropies: np.ndarray
    """In nats, [B]."""

    def gradients(self, log_probs: np.ndarray, entropy: float) -> tuple[np.ndarray, np.ndarray | None]:
        """The gradients of the outputs [B, K], and of log σ [K] if there is one, for those of each of the log
        probabilities [B], and of each entropy."""


class PlainCategorical:
    """As `Categorical`. Outputs lie transposed here: to sum over a few numbers of each row takes five times as long as
    to add a few long rows."""

    def __init__(self, outputs: np.ndarray, actions: np.ndarray) -> None:
        logits = np.ascontiguousarray(outputs.T)
        logits -= np.maximum.reduce(logits)
        self._p = np.exp(logits)
        total = np.add.reduce(self._p)
        self._p /= total
        self._log_p = np.subtract(logits, np.log(total), out=logits)
        self._places = actions * len(actions)  # in flat arrays: a third of the time of pairs
        self._places += np.arange(len(actions))
        self.log_probs = self._log_p.reshape(-1)[self._places]
        self.entropies = -np.add.reduce(self._p * self._log_p)

    def gradients(self, log_probs: np.ndarray, entropy: float) -> tuple[np.ndarray, None]:
        """∂ log π(a) / ∂ logits = 1_a − p,  ∂ H / ∂ logits = −p (log p + H)."""
        found = self._p * -log_probs
        found.reshape(-1)[self._places] += log_probs
        if entropy:
            found -= entropy * self._p * (self._log_p + self.entropies)
        return found.T, None


class PlainGaussian:
    """As `DiagonalGaussian`."""

    def __init__(self, outputs: np.ndarray, actions: np.ndarray, log_std: np.ndarray) -> None:
        self._inverse = np.exp(-log_std)
        self._standardized = (actions - outputs) * self._inverse
        self._squared = np.square(self._standardized)
        width = len(log_std)
        constant = log_std.sum() + np.float32(width * HALF_LOG_2PI)
        self.log_probs = np.matmul(self._squared, np.full(width, -0.5, np.float32)) - constant
        self.entropies = np.full(len(outputs), constant + np.float32(0.5 * width), np.float32)

    def gradients(self, log_probs: np.ndarray, entropy: float) -> tuple[np.ndarray, np.ndarray]:
        """With z = (a − mean) / σ: ∂ log π(a) / ∂ mean = z / σ,  ∂ log π(a) / ∂ log σ = z² − 1,  ∂ H / ∂ log σ = 1."""
        of_log_std = np.matmul(log_probs, self._squared) - log_probs.sum() + np.float32(entropy * len(log_probs))
        return self._standardized * (self._inverse * log_probs[:, None]), of_log_std


class KnownLoss:
    """A loss whose gradient is written out: what an optimizer asks of a tensor that is one.

    `write` puts the gradient of so many times the loss where the optimizer expects it, in the place of what was there.
    """

    def __init__(self, value: float, write: Callable[[float], None], factor: float = 1.0) -> None:
        self._value, self._write, self._factor = value, write, factor

    def __mul__(self, factor: float) -> KnownLoss:
        return KnownLoss(self._value, self._write, self._factor * factor)

    def detach(self) -> float:
        """The number."""
        return self._value * self._factor

    def backward(self, inputs: Any = None) -> None:
        """As a tensor's, of gradients that are zero."""
        self._write(self._factor)


class PlainModel:
    """What stands for a model, of whose flat weights it is made, in rollouts. Rows, noise and results are arrays."""

    memory = None
    policy: PlainMLP
    """What acts."""

    def __init__(self, model: Any) -> None:
        self._layout, self._activation = model.parameters_layout, model.spec.architecture.activation
        self._flat = model.flat.detach().numpy(), model.flat_gradients.numpy()
        self._encode: Callable[[np.ndarray], Any] | None = None if model.takes_vectors else model.encode
        self._rows: dict[tuple[int, str], np.ndarray] = {}
        self._shared: _Memory = {}
        self._quietly = Context()  # whoever asks looks whether numbers are finite; `errstate` takes 0.7 µs each time
        self._quietly.run(np.seterr, over="ignore", invalid="ignore")

    def outputs(self, rows: np.ndarray) -> np.ndarray:
        """As the model's, for rollouts: numpy's products give a row other bits in another place of the batch, which is
        always the same there, but not where answers are served."""
        return self._quietly.run(self.policy.forward, rows)

    def unchanging(self, rows: int) -> contextlib.AbstractContextManager[None]:
        """In it the weights stay as they are, and so many rows act: that takes less time."""
        return self.policy.unchanging(rows)

    @staticmethod
    def loss_of(value: float, write: Callable[[float], None]) -> KnownLoss:
        """A loss of this value, whose gradient is written when it is asked for."""
        return KnownLoss(value, write)

    def mlp(self, name: str) -> PlainMLP:
        """A network of the model."""
        return PlainMLP(self._layout, name, self._activation, *self._flat, shared=self._shared)

    def encode(self, observations: np.ndarray, purpose: str = "") -> np.ndarray:
        """As the model's, [B, numbers] float32, valid until as many are encoded again for the same purpose."""
        if self._encode is not None:
            return as_array(self._encode(observations))
        key = len(observations), purpose
        rows = self._rows.get(key)
        if rows is None:
            rows = self._rows[key] = aligned(len(observations), math.prod(observations.shape[1:]))
        rows[...] = observations if observations.ndim == 2 else observations.reshape(rows.shape)
        return rows

    @staticmethod
    def given(noise: np.ndarray) -> np.ndarray:
        """As the model's."""
        return noise

    @staticmethod
    def recall(rows: np.ndarray, memory: None) -> tuple[np.ndarray, None]:
        """As the model's."""
        return rows, memory


class PlainActorCritic(PlainModel):
    """Of an `ActorCritic` without encoder and memory: also what PPO learns with."""

    shares_layers = False

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.policy = self.pi = self.mlp("pi")
        self.vf = self.mlp("vf")
        self._log_std, self._of_log_std = (
            self._layout.views(flat).get("log_std", np.empty(0, np.float32)) for flat in self._flat
        )

    def values(self, rows: np.ndarray) -> np.ndarray:
        """As the model's, with the same restriction."""
        return self._quietly.run(self.vf.forward, rows)[:, 0]

    def choose(self, outputs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """As the model's, drawn."""
        if len(self._log_std):
            return outputs + torch.from_numpy(self._log_std).exp().numpy() * noise  # numpy's has other bits
        return (outputs + noise).argmax(-1)

    def distribution(self, outputs: np.ndarray, actions: np.ndarray) -> PlainDistribution:
        """The distribution that outputs [B, K] describe, at these actions."""
        if len(self._log_std):
            return PlainGaussian(outputs, actions, self._log_std)
        return PlainCategorical(outputs, actions)

    def loss(self, value: float, outputs: np.ndarray, log_std: np.ndarray | None, values: np.ndarray) -> KnownLoss:
        """A loss of this value, of whose gradients those of outputs [B, K], log σ [K] and values [B] are given: they
        are of the rows that both networks were last called with."""

        def write(factor: float) -> None:
            scale = np.float32(factor)
            self.pi.backward(outputs if factor == 1 else outputs * scale)
            self.vf.backward((values if factor == 1 else values * scale)[:, None])
            if log_std is not None:
                np.multiply(log_std, scale, self._of_log_std)

        return KnownLoss(value, write)
