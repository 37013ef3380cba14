"""Actor-critics of plain vectors in numpy: forward and backward pass written out, on the memory of torch's tensors.

A network of two layers of 64 is not bound by its products but by what lies around them: torch's cost per operation,
the walk of its gradients through each of them, and its `tanh`, which takes twelve times as long as numpy's. So a
minibatch of 64 rows takes a third of the time, one of 512 half. Models that are not plain, and those on another device,
are torch's own operations; a test holds the gradients of both equal.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .distributions import HALF_LOG_2PI
from .layout import ParameterLayout
from .rows import Rows


class PlainMLP:
    """The layers `name`.layers.0, 1, … of flat float32 `weights`, with `activation` ("tanh" or "relu") between them;
    gradients are written into the flat `gradients`."""

    def __init__(
        self, layout: ParameterLayout, name: str, activation: str, weights: np.ndarray, gradients: np.ndarray
    ) -> None:
        parameters, slopes = layout.views(weights), layout.views(gradients)
        count = sum(key.startswith(f"{name}.layers.") for key in layout.shapes) // 2
        names = [(f"{name}.layers.{layer}.weight", f"{name}.layers.{layer}.bias") for layer in range(count)]
        self._layers = [(parameters[weight], parameters[bias]) for weight, bias in names]
        self._slopes = [(slopes[weight], slopes[bias]) for weight, bias in names]
        self._is_tanh, self._given = activation == "tanh", [np.empty((0, 0), np.float32)]

    def forward(self, rows: np.ndarray) -> np.ndarray:
        """[B, inputs] → [B, outputs]; `backward` then is of these rows."""
        self._given, last = [], len(self._layers) - 1
        with np.errstate(over="ignore", invalid="ignore"):  # whoever asks looks whether the outputs are finite
            for layer, (weight, bias) in enumerate(self._layers):
                self._given.append(rows)
                rows = np.matmul(rows, weight.T)
                np.add(rows, bias, out=rows)
                if layer < last:
                    np.tanh(rows, out=rows) if self._is_tanh else np.maximum(rows, 0, out=rows)
        return rows

    def backward(self, gradient: np.ndarray) -> None:
        """Write the gradients of all parameters, for that of the outputs, [B, outputs]."""
        ones = np.ones(len(gradient), np.float32)
        for layer in range(len(self._layers) - 1, -1, -1):
            given, (of_weight, of_bias) = self._given[layer], self._slopes[layer]
            np.matmul(gradient.T, given, out=of_weight)
            np.matmul(ones, gradient, out=of_bias)  # takes a fourth of the time of a sum over rows
            if layer:
                gradient = np.matmul(gradient, self._layers[layer][0])
                slope = np.subtract(1, np.multiply(given, given, out=given), out=given) if self._is_tanh else given > 0
                np.multiply(gradient, slope, out=gradient)


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
        logits -= logits.max(0)
        self._p = np.exp(logits)
        total = self._p.sum(0)
        self._p /= total
        self._log_p = np.subtract(logits, np.log(total), out=logits)
        self._chosen = actions, np.arange(len(actions))
        self.log_probs = self._log_p[self._chosen]
        self.entropies = -(self._p * self._log_p).sum(0)

    def gradients(self, log_probs: np.ndarray, entropy: float) -> tuple[np.ndarray, None]:
        """∂ log π(a) / ∂ logits = 1_a − p,  ∂ H / ∂ logits = −p (log p + H)."""
        found = self._p * -log_probs
        found[self._chosen] += log_probs
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
    """A loss whose gradient is known already: what an optimizer asks of a tensor that is one.

    `backward` adds the flat `gradient` to `into`; it must not change before.
    """

    def __init__(self, value: Tensor, gradient: Tensor, into: Tensor) -> None:
        self._value, self._gradient, self._into = value, gradient, into

    def __mul__(self, factor: float) -> KnownLoss:
        return KnownLoss(self._value * factor, self._gradient * factor, self._into)

    def detach(self) -> Tensor:
        """The number."""
        return self._value

    def backward(self, inputs: Any = None) -> None:
        """As a tensor's."""
        self._into.add_(self._gradient)


class PlainActorCritic:
    """Of an `ActorCritic` without encoder and memory, whose flat weights it shares."""

    def __init__(self, model: Any) -> None:
        layout, activation = model.parameters_layout, model.spec.architecture.activation
        self._into = model.flat_gradients
        self._gradients = np.zeros(layout.size, np.float32)
        weights = model.flat.detach().numpy()
        self.pi, self.vf = (PlainMLP(layout, name, activation, weights, self._gradients) for name in ("pi", "vf"))
        self._log_std, self._of_log_std = (
            layout.views(flat).get("log_std", np.empty(0, np.float32)) for flat in (weights, self._gradients)
        )

    def outputs(self, rows: Rows) -> Tensor:
        """As the model's, for rollouts: numpy's products give a row other bits in another place of the batch, which is
        always the same there, but not where answers are served."""
        assert isinstance(rows, Tensor)
        return torch.from_numpy(self.pi.forward(rows.numpy()))

    def values(self, rows: Rows) -> Tensor:
        """As the model's, with the same restriction."""
        assert isinstance(rows, Tensor)
        return torch.from_numpy(self.vf.forward(rows.numpy())[:, 0])

    def distribution(self, outputs: np.ndarray, actions: np.ndarray) -> PlainDistribution:
        """The distribution that outputs [B, K] describe, at these actions."""
        if len(self._log_std):
            return PlainGaussian(outputs, actions, self._log_std)
        return PlainCategorical(outputs, actions)

    def loss(self, value: float, outputs: np.ndarray, log_std: np.ndarray | None, values: np.ndarray) -> KnownLoss:
        """A loss of this value, of whose gradients those of outputs [B, K], log σ [K] and values [B] are given: they
        are of the rows that both networks were last called with."""
        self.pi.backward(outputs)
        self.vf.backward(values[:, None])
        if log_std is not None:
            self._of_log_std[...] = log_std
        return KnownLoss(torch.tensor(value), torch.from_numpy(self._gradients), self._into)
