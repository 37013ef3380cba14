"""Optimizers on one flat array: gradient norm, clipping and step are a handful of operations, whatever the number of
layers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..divergence import all_finite
from .lost import StateLostError
from .parts import PART

if TYPE_CHECKING:
    from ..models.plain import KnownLoss


_SURELY_WITHIN = 0.99
"""Part of a limit below which a number with the rounding errors of a long sum surely is within it."""


class Share(Protocol):
    """How learners divide the moments: each keeps those of its part of the parameters, and steps there."""

    def part(self, size: int) -> tuple[int, int]:
        """Which of `size` parameters are one's own."""

    def others(self, start: int, own: np.ndarray) -> Sequence[tuple[int, np.ndarray]]:
        """The parameters of all others after a step, where each piece begins, for one's own, which begin at `start`.
        Raises StateLostError if somebody gives none: nobody else has the moments for them."""


class FlatOptimizer(ABC):
    """`parameters` and `gradients` are flat tensors of one shape, of which no gradient is asked; what is learned are
    views into `parameters`, their `.grad` into `gradients`. Where they are a part of what a loss depends on, `leaves`
    are those views: no other gradient is computed. `moments` names the averages that the optimizer keeps, each of that
    shape."""

    moments: tuple[str, ...] = ()

    def __init__(self, parameters: Tensor, gradients: Tensor, *, leaves: Sequence[Tensor] | None = None) -> None:
        self._parameters, self._gradients = parameters, gradients
        self._cheap_gradients = cheap(gradients)
        self._leaves = leaves
        self._moments = {name: torch.zeros_like(parameters) for name in self.moments}
        self._loss: Any = 0.0
        # Sums, asked once an iteration: one that is not finite stays so. On a GPU tensors: no step waits for them.
        self._loss_sum: Any = 0.0
        self._norm_sum: Any = 0.0
        self.steps = 0
        self._share: Share | None = None
        self._own = 0, len(parameters)
        self._stepped = parameters, gradients

    def share(self, share: Share | None) -> None:
        """Keep the moments of one's own part of the parameters alone from now on; None: of all. StateLostError if they
        are not there."""
        size = len(self._parameters)
        start, stop = (0, size) if share is None else share.part(size)
        if self._own != (start, stop):
            if self._own != (0, size):
                raise StateLostError(f"the moments {self._own} are kept, but those of {(start, stop)} are needed")
            self._moments = {name: moment[start:stop].clone() for name, moment in self._moments.items()}
        self._share, self._own = share, (start, stop)
        self._stepped = self._parameters[start:stop], self._gradients[start:stop]

    @property
    def gradients(self) -> Tensor:
        """The gradient that the next step is taken against, flat."""
        return self._gradients

    def minimize(self, loss: Tensor | KnownLoss, *, learning_rate: float, max_grad_norm: float | None = None) -> None:
        """One step against the gradient of `loss`, which all learners of a group compute alike; arguments as in
        `step`. Losses over rows are what `Learner.minimize` is for."""
        self.differentiate(loss)
        self.step(learning_rate=learning_rate, max_grad_norm=max_grad_norm)

    def differentiate(self, loss: Tensor | KnownLoss) -> None:
        """Make the gradient of `loss` the one that the next step is taken against."""
        if isinstance(loss, Tensor):  # else the gradient is not added to what is there
            self._gradients.zero_()
        loss.backward(inputs=self._leaves)
        self._loss = loss.detach()

    def take_gradient(self, pieces: Sequence[tuple[int, Any]], loss: Tensor | float) -> None:
        """Take over a gradient, in pieces (tensors or arrays, and where they begin), and the loss that it is of, in the
        place of those that `differentiate` finds."""
        for start, values in pieces:
            copy_into(self._gradients[start : start + len(values)], values)
        self._loss = loss

    def step(self, *, learning_rate: float, max_grad_norm: float | None = None) -> None:
        """One step against the gradient; its norm over all parameters is clipped to `max_grad_norm` (None: not)."""
        norm = self._gradient_norm(max_grad_norm)
        self._loss_sum = self._loss_sum + self._loss
        self._norm_sum = self._norm_sum + norm
        if max_grad_norm is not None:
            self._clip(norm, max_grad_norm)
        self.steps += 1
        self._step(learning_rate, *self._stepped)
        if self._share is not None and len(self._stepped[0]) < len(self._parameters):
            for begin, values in self._share.others(self._own[0], self._stepped[0].cpu().numpy()):
                copy_into(self._parameters[begin : begin + len(values)], values)

    def _gradient_norm(self, largest: float | None) -> Tensor | float:
        """As torch has it where it may be beyond `largest`; else numpy's, which is another by rounding, in a third of
        the time."""
        if not self._gradients.is_cpu:
            return torch.linalg.vector_norm(self._gradients)
        rough = math.sqrt(self._cheap_gradients.dot(self._cheap_gradients))
        if largest is None or rough < _SURELY_WITHIN * largest:
            return rough
        return float(torch.linalg.vector_norm(self._gradients).numpy())

    def _clip(self, norm: Tensor | float, largest: float) -> None:
        scale = largest / (norm + 1e-6)
        if isinstance(scale, Tensor):
            self._gradients.mul_(scale.clamp(max=1.0))
        elif scale < 1:
            self._cheap_gradients *= scale

    @abstractmethod
    def _step(self, learning_rate: float, parameters: Tensor, gradients: Tensor) -> None:
        """Change those parameters by their gradients whose moments are kept; `steps` counts this step already."""

    def take_sums(self) -> tuple[float, float]:
        """Sums of the losses and of the gradients' norms (before they were clipped) since the last call."""
        sums = float(self._loss_sum), float(self._norm_sum)
        self._loss_sum = self._norm_sum = 0.0
        return sums

    def sums_are_finite(self) -> bool:
        """Whether those sums are."""
        return math.isfinite(self._loss_sum + self._norm_sum)

    def moments_are_finite(self) -> bool:
        """Whether all moments are; a parameter whose moment is not would not be updated any more, unnoticed."""
        if self._gradients.is_cpu:
            return all(all_finite(moment.numpy()) for moment in self._moments.values())
        return all(bool(torch.isfinite(moment).all()) for moment in self._moments.values())

    def state(self) -> dict[str, Any]:
        """The moments as float32 arrays, copied, and `steps`; and of which parameters they are, where these are not
        all: see `whole`."""
        arrays: dict[str, Any] = {name: moment.cpu().numpy().copy() for name, moment in self._moments.items()}
        partial = self._own != (0, len(self._parameters))
        return {**arrays, "steps": self.steps, **({PART: self._own[0]} if partial else {})}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        for name, moment in self._moments.items():
            moment.copy_(torch.tensor(state[name]))
        self.steps = state["steps"]
        self.take_sums()


def copy_into(into: Tensor, values: Any) -> None:
    """Copy a tensor or an array into a tensor."""
    if isinstance(values, Tensor):
        into.copy_(values)
    elif into.device.type == "cpu":  # what lies in the object store is read-only, which torch does not know
        np.copyto(into.numpy(), values)
    else:
        into.copy_(torch.tensor(values))


def cheap(tensor: Tensor) -> Any:
    """A tensor's memory as an array, where it is this process's, for operations with one number: numpy's take a third
    of the time of torch's and have the same bits, which is not so where a product is added to something."""
    return tensor.numpy() if tensor.is_cpu else tensor


class FlatAdam(FlatOptimizer):
    """Adam (Kingma & Ba, 2015, arXiv 1412.6980, algorithm 1).

    m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,   θ ← θ − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
    """

    moments = ("first_moment", "second_moment")

    def __init__(
        self,
        parameters: Tensor,
        gradients: Tensor,
        *,
        leaves: Sequence[Tensor] | None = None,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, gradients, leaves=leaves)
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon

    def _step(self, learning_rate: float, parameters: Tensor, gradients: Tensor) -> None:
        first, second = self._moments["first_moment"], self._moments["second_moment"]
        first.lerp_(gradients, 1 - self._beta1)
        decayed = cheap(second)
        decayed *= self._beta2
        second.addcmul_(gradients, gradients, value=1 - self._beta2)
        denominator = second.sqrt()
        divided = cheap(denominator)
        divided /= math.sqrt(1 - self._beta2**self.steps)
        divided += self._epsilon
        parameters.addcdiv_(first, denominator, value=-learning_rate / (1 - self._beta1**self.steps))


class FlatAdamW(FlatAdam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019, arXiv 1711.05101, algorithm 2).

    θ ← θ − lr · decay · θ at the places `decayed` (all by default),   then as Adam
    """

    def __init__(
        self,
        parameters: Tensor,
        gradients: Tensor,
        *,
        weight_decay: float = 0.01,
        decayed: Sequence[slice] = (slice(None),),
        **options: Any,
    ) -> None:
        super().__init__(parameters, gradients, **options)
        self._weight_decay, self._decayed = weight_decay, tuple(decayed)

    def _step(self, learning_rate: float, parameters: Tensor, gradients: Tensor) -> None:
        first, last = self._own
        for where in self._decayed:
            begin, end, _ = where.indices(len(self._parameters))
            self._parameters[max(begin, first) : min(end, last)].mul_(1 - learning_rate * self._weight_decay)
        super()._step(learning_rate, parameters, gradients)


class FlatSGD(FlatOptimizer):
    """Stochastic gradient descent with momentum (Polyak, 1964; Sutskever et al., 2013), in torch's form.

    v ← μ v + g + decay · θ,   θ ← θ − lr · v
    """

    moments = ("velocity",)

    def __init__(
        self,
        parameters: Tensor,
        gradients: Tensor,
        *,
        leaves: Sequence[Tensor] | None = None,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, gradients, leaves=leaves)
        self._momentum, self._weight_decay = momentum, weight_decay

    def _step(self, learning_rate: float, parameters: Tensor, gradients: Tensor) -> None:
        velocity = self._moments["velocity"]
        velocity.mul_(self._momentum).add_(gradients).add_(parameters, alpha=self._weight_decay)
        parameters.add_(velocity, alpha=-learning_rate)


class FlatRMSprop(FlatOptimizer):
    """RMSprop (Hinton, 2012, lecture 6e), with ε outside the root, as torch and Stable-Baselines3's default have it.

    v ← α v + (1 − α) g²,   θ ← θ − lr · g / (√v + ε)
    """

    moments = ("square_average",)

    def __init__(
        self,
        parameters: Tensor,
        gradients: Tensor,
        *,
        leaves: Sequence[Tensor] | None = None,
        alpha: float = 0.99,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(parameters, gradients, leaves=leaves)
        self._alpha, self._epsilon = alpha, epsilon

    def _step(self, learning_rate: float, parameters: Tensor, gradients: Tensor) -> None:
        average = self._moments["square_average"]
        average.mul_(self._alpha).addcmul_(gradients, gradients, value=1 - self._alpha)
        parameters.addcdiv_(gradients, average.sqrt().add_(self._epsilon), value=-learning_rate)
