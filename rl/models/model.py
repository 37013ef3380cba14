"""The base of all models: an ordinary `nn.Module` whose parameters are views into one flat array.

All parameters lie in one flat float32 tensor, all gradients in another, so that optimizer step, gradient norm,
broadcast and checkpoint each act on one array, whatever the number of layers. Random choices come from noise that is
given, drawn from a numpy stream; torch's own generator decides initial weights only, seeded for them.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from ...envs import to_env_actions
from ..data.tree import Tree, leaves
from .architecture import row_size
from .layout import ParameterLayout
from .spec import ModelSpec


class Model(nn.Module):
    """A network between two spaces. Subclasses make their parts in `__init__`; then `flatten` is called once."""

    acting: ClassVar[tuple[str, ...] | None] = None
    """The parts that acting needs, which workers, evaluation and serving get; None is all."""
    parameters_layout: ParameterLayout
    """Names and shapes of all parameters in the flat array."""
    layout: ParameterLayout
    """Those of the acting parts, with which it begins: of the weights that travel."""
    flat: Tensor
    """All parameters, [size] float32."""
    flat_gradients: Tensor
    """Their gradients, [size] float32; `backward` adds to it."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def outputs(self, rows: Tensor) -> Tensor:
        """What actions are chosen by, [B, K], for encoded observations."""

    @abstractmethod
    def choose(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """Actions [B, …]: the best ones, or drawn ones where `noise` [B, M] is given."""

    @abstractmethod
    def draw_noise(self, generator: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """float32 noise [*rows, M] for `choose`."""

    def encode(self, observations: Tree) -> Tensor:
        """Observations [B, *shape] as the network's rows [B, row_size] float32, on the model's device.

        Copies into memory that torch aligns: a product's bits may depend on the alignment of its operands.
        """
        given = torch.tensor(observations, device=self.flat.device)
        space = self.spec.observation_space
        if isinstance(space, spaces.Discrete):
            return torch.nn.functional.one_hot(given.long() - int(space.start), int(space.n)).float()
        if isinstance(space, spaces.MultiDiscrete):
            choices = (given.long() - torch.tensor(space.start, device=given.device)).reshape(len(given), -1)
            sizes = [int(n) for n in np.ravel(space.nvec)]
            return torch.cat([torch.nn.functional.one_hot(choices[:, i], n) for i, n in enumerate(sizes)], -1).float()
        rows = given.reshape(len(given), -1).float()
        is_image = space.dtype == np.uint8 and len(space.shape or ()) == 3
        return rows / 255 if is_image else rows

    def environment_actions(self, actions: np.ndarray) -> np.ndarray:
        """What `env.step` takes, [B, *space.shape], for actions [B, …] as `choose` gives them."""
        space = self.spec.action_space
        return to_env_actions(space, actions.reshape(len(actions), *(space.shape or ())))

    def part(self, *names: str) -> slice:
        """Where the parameters of submodules that lie side by side are in the flat array."""
        layout = self.parameters_layout
        own = [name for name in layout.shapes if name.split(".")[0] in names]
        first, last = own[0], own[-1]
        return slice(layout.offsets[first], layout.offsets[last] + math.prod(layout.shapes[last]))

    @property
    def inputs(self) -> int:
        """Width of encoded observations."""
        return row_size(self.spec.observation_space)

    def flatten(self, device: str | torch.device = "cpu") -> None:
        """Move all parameters and gradients into flat tensors on `device`. Raises ValueError if there are buffers."""
        buffers = [name for name, _ in self.named_buffers()]
        if buffers:
            raise ValueError(
                f"{type(self).__name__} has buffers ({', '.join(buffers)}), which would neither reach the workers nor "
                "a checkpoint: make them parameters"
            )
        acting = {name: self.acting is None or name.split(".")[0] in self.acting for name, _ in self.named_parameters()}
        named = dict(sorted(self.named_parameters(), key=lambda item: not acting[item[0]]))  # stable: acting ones first
        shapes = {name: tuple(parameter.shape) for name, parameter in named.items()}
        self.parameters_layout = ParameterLayout(shapes)
        self.layout = ParameterLayout({name: shape for name, shape in shapes.items() if acting[name]})
        self.flat = torch.cat([parameter.detach().float().reshape(-1) for parameter in named.values()]).to(device)
        self.flat_gradients = torch.zeros_like(self.flat)
        layout = self.parameters_layout
        views, gradients = layout.views(self.flat), layout.views(self.flat_gradients)
        for name, parameter in named.items():
            parameter.data, parameter.grad = views[name], gradients[name]

    def get_weights(self) -> np.ndarray:
        """The acting parameters as one flat float32 array: a copy, in the order of `layout`."""
        return self.flat[: self.layout.size].detach().cpu().numpy().copy()

    def check_finite(self, observations: Tree, **found: np.ndarray) -> None:
        """Raise ValueError, naming the row, if what the model made of `observations`, arrays [B, …] by their names, is
        not finite."""
        for name, values in found.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                spoiled = int((~torch.isfinite(self.flat)).sum())
                largest = max(float(np.abs(leaf[row]).max()) for _, leaf in leaves(observations))
                reason = (
                    f"{spoiled} of its {len(self.flat)} weights are not: load an earlier checkpoint"
                    if spoiled
                    else f"the observation has values up to {largest:g}: scale it"
                )
                raise ValueError(f"the policy's {name} for row {row} is not finite ({values[row]}): {reason}")

    def set_weights(self, flat: np.ndarray) -> None:
        """Take over flat weights as `get_weights` gives them; ValueError if their shape is another."""
        self.layout.views(flat)
        self.flat[: self.layout.size].copy_(torch.tensor(flat))

    def get_parameters(self) -> np.ndarray:
        """All parameters as one flat float32 array: a copy."""
        return self.flat.detach().cpu().numpy().copy()

    def set_parameters(self, flat: np.ndarray) -> None:
        """Take over all parameters as `get_parameters` gives them."""
        self.flat.copy_(torch.tensor(flat))


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
