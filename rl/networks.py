"""The network of a policy, computed from views into one flat array of parameters.

    rows [B, row_size] ─encoder─▶ latents of policy and value ─head─▶ outputs [B, output_size], values [B]

Policy and value share no layer, as in Stable-Baselines3's `MlpPolicy`. Evaluating both as one batched product was
measured and is not faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .architecture import Architecture

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}
Latents = tuple[Tensor, Tensor]


class Encoder:
    """Two multilayer perceptrons, for policy and value, on the same rows."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, Tensor]) -> None:
        self._activation = ACTIVATION_FUNCTIONS[architecture.activation]
        self._pi = _layers("encoder.pi", len(architecture.pi), parameters)
        self._vf = _layers("encoder.vf", len(architecture.vf), parameters)

    def __call__(self, rows: Tensor) -> Latents:
        """Rows [B, row_size] → latents of policy and value."""
        pi = vf = rows
        for weight, bias in self._pi:
            pi = self._activation(torch.addmm(bias, pi, weight))
        for weight, bias in self._vf:
            vf = self._activation(torch.addmm(bias, vf, weight))
        return pi, vf


class Head:
    """Linear outputs: what describes the action distribution, and the value."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._pi = parameters["head.pi.weight"], parameters["head.pi.bias"]
        self._vf = parameters["head.vf.weight"], parameters["head.vf.bias"]
        self.log_std = parameters.get("head.log_std")

    def __call__(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Latents → outputs [B, output_size] and values [B]."""
        pi, vf = latents
        outputs = torch.addmm(self._pi[1], pi, self._pi[0])
        values = torch.addmm(self._vf[1], vf, self._vf[0])
        return outputs, values.squeeze(-1)


class Network:
    """Encoder and head."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, Tensor]) -> None:
        self.encoder = Encoder(architecture, parameters)
        self.head = Head(parameters)

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B, row_size] → outputs [B, output_size] and values [B]."""
        return self.head(self.encoder(rows))


def _layers(prefix: str, count: int, parameters: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(parameters[f"{prefix}.{i}.weight"], parameters[f"{prefix}.{i}.bias"]) for i in range(count)]
