"""Adam on one flat array: norm, clipping and step are a handful of operations, whatever the number of layers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


class FlatAdam:
    """Adam (Kingma & Ba, 2015, arXiv 1412.6980, algorithm 1) with the gradient clipped to a norm before.

        m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,   θ ← θ − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    `parameters` and `gradients` are flat tensors of one shape; the leaves of the network are views into `parameters`,
    their `.grad` into `gradients`.
    """

    def __init__(
        self, parameters: Tensor, gradients: Tensor, *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-5
    ) -> None:
        self._parameters, self._gradients = parameters, gradients
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self._first_moment = torch.zeros_like(parameters)
        self._second_moment = torch.zeros_like(parameters)
        self._loss_sum = torch.zeros((), device=parameters.device)
        self._norm_sum = torch.zeros((), device=parameters.device)
        self.steps = 0

    def minimize(self, loss: Tensor, *, learning_rate: float, max_grad_norm: float | None) -> None:
        """One step against the gradient of `loss`; the gradient's norm over all parameters is clipped to
        `max_grad_norm` (None: not)."""
        self._gradients.zero_()
        loss.backward()
        with torch.no_grad():
            norm = torch.linalg.vector_norm(self._gradients)
            # Sums, asked once an iteration: one that is not finite stays so, and no step waits for a GPU's answer.
            self._loss_sum += loss.detach()
            self._norm_sum += norm
            if max_grad_norm is not None:
                self._gradients.mul_((max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
            self._step(learning_rate)

    def take_sums(self) -> tuple[float, float]:
        """Sums of the losses and of the gradients' norms (before they were clipped) since the last call."""
        sums = float(self._loss_sum), float(self._norm_sum)
        self._loss_sum.zero_()
        self._norm_sum.zero_()
        return sums

    def _step(self, learning_rate: float) -> None:
        self.steps += 1
        self._first_moment.lerp_(self._gradients, 1 - self._beta1)
        self._second_moment.mul_(self._beta2).addcmul_(self._gradients, self._gradients, value=1 - self._beta2)
        correction = math.sqrt(1 - self._beta2**self.steps)
        denominator = self._second_moment.sqrt().div_(correction).add_(self._epsilon)
        self._parameters.addcdiv_(self._first_moment, denominator, value=-learning_rate / (1 - self._beta1**self.steps))

    def get_moments(self) -> np.ndarray:
        """Both moments as one float32 array [2, size]: a copy."""
        return torch.stack([self._first_moment, self._second_moment]).cpu().numpy()

    def set_state(self, moments: np.ndarray, steps: int) -> None:
        """Continue from `get_moments()` and `steps`."""
        given = torch.tensor(moments, device=self._parameters.device)
        self._first_moment.copy_(given[0])
        self._second_moment.copy_(given[1])
        self.steps = steps
        self.take_sums()
