"""A module whose parameters are views into one flat array.

All parameters lie in one flat float32 tensor, all gradients in another, so that optimizer step, gradient norm,
broadcast and checkpoint each act on one array, whatever the number of layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .layout import ParameterLayout


def lay_flat(
    named: Mapping[str, nn.Parameter], device: str | torch.device = "cpu"
) -> tuple[ParameterLayout, Tensor, Tensor]:
    """Make parameters views into one flat tensor on `device`, and their gradients into another; returns where each
    lies, and both tensors [size] float32."""
    layout = ParameterLayout({name: tuple(parameter.shape) for name, parameter in named.items()})
    flat = torch.cat([parameter.detach().float().reshape(-1) for parameter in named.values()]).to(device)
    gradients = torch.zeros_like(flat)
    values, slopes = layout.views(flat), layout.views(gradients)
    for name, parameter in named.items():
        parameter.data, parameter.grad = values[name], slopes[name]
    return layout, flat, gradients


class FlatModule(nn.Module):
    """Subclasses make their parts in `__init__`; then `flatten` is called once."""

    acting: ClassVar[tuple[str, ...] | None] = None
    """The parts that acting needs, which workers, evaluation and serving get; None is all. The encoder of a part is
    called like it with "_encoder" behind, and belongs to it."""
    constant_buffers: ClassVar[bool] = False
    """Whether it has buffers, all of which follow from what it is made of."""
    trained: tuple[str, ...] | None = None
    """The parts that are learned, which lie side by side; None is all."""
    parameters_layout: ParameterLayout
    """Names and shapes of all parameters in the flat array."""
    layout: ParameterLayout
    """Those of the acting parts, with which it begins: of the weights that travel."""
    flat: Tensor
    """All parameters, [size] float32."""
    _array: np.ndarray | None
    """The weights that travel, where they lie in this memory."""
    flat_gradients: Tensor
    """Their gradients, [size] float32; `backward` adds to it."""

    def part(self, *names: str) -> slice:
        """Where the parameters of submodules that lie side by side are in the flat array, those of their encoders
        included."""
        layout = self.parameters_layout
        own = [name for name in layout.shapes if self.belongs(name, *names)]
        first, last = own[0], own[-1]
        return slice(layout.offsets[first], layout.offsets[last] + math.prod(layout.shapes[last]))

    @staticmethod
    def belongs(parameter: str, *names: str) -> bool:
        """Whether a parameter is one of these submodules', or of their encoders."""
        return parameter.split(".", maxsplit=1)[0].removesuffix("_encoder") in names

    def matrices(self, start: int, stop: int | None) -> list[slice]:
        """Where, between two places of the flat array and counted from the first, parameters of two axes or more lie
        that are no embeddings."""
        tables = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        named, offsets = dict(self.named_parameters()), self.parameters_layout.offsets
        return [
            slice(offsets[name] - start, offsets[name] - start + parameter.numel())
            for name, parameter in named.items()
            if parameter.dim() > 1 and id(parameter) not in tables and start <= offsets[name] < (stop or len(self.flat))
        ]

    def flatten(self, device: str | torch.device = "cpu") -> None:
        """Move all parameters and gradients into flat tensors on `device`. Raises ValueError if there are buffers."""
        buffers = [name for name, _ in self.named_buffers()]
        if self.constant_buffers:
            for buffer in self.buffers():
                buffer.data = buffer.data.to(device)
        elif buffers:
            raise ValueError(
                f"{type(self).__name__} has buffers ({', '.join(buffers)}), which would neither reach the workers nor "
                "a checkpoint: make them parameters"
            )
        parts = None if self.acting is None else ("normalizer", *self.acting)
        acting = {name: parts is None or self.belongs(name, *parts) for name, _ in self.named_parameters()}
        named = dict(sorted(self.named_parameters(), key=lambda item: not acting[item[0]]))  # stable: acting ones first
        self.parameters_layout, self.flat, self.flat_gradients = lay_flat(named, device)
        shapes = self.parameters_layout.shapes
        self.layout = ParameterLayout({name: shape for name, shape in shapes.items() if acting[name]})
        travelling = self.flat[: self.layout.size]
        # Without a tensor in between: rollouts of one step begin and end with these.
        self._array = travelling.numpy() if travelling.is_cpu else None

    def get_weights(self) -> np.ndarray:
        """The acting parameters as one flat float32 array: a copy, in the order of `layout`."""
        array = self.flat[: self.layout.size].detach().cpu().numpy() if self._array is None else self._array
        return array.copy()

    def set_weights(self, flat: np.ndarray) -> None:
        """Take over flat weights as `get_weights` gives them; ValueError if their shape is another."""
        self.layout.check(flat)
        if self._array is None:
            self.flat[: self.layout.size].copy_(torch.tensor(flat))
        else:
            np.copyto(self._array, flat)

    def begin_with(self, named: Mapping[str, np.ndarray]) -> None:
        """Take over parameters by name; those that are not `named` stay. ValueError if there is none of a name, or it
        has another shape."""
        views = self.parameters_layout.views(self.flat)
        for name, values in named.items():
            if name not in views or tuple(values.shape) != tuple(views[name].shape):
                own = tuple(views[name].shape) if name in views else "none"
                raise ValueError(f"the parameter {name!r} has shape {values.shape}, but this network has {own}")
            views[name].copy_(torch.tensor(values))

    def get_parameters(self) -> np.ndarray:
        """All parameters as one flat float32 array: a copy."""
        return self.flat.detach().cpu().numpy().copy()

    def set_parameters(self, flat: np.ndarray) -> None:
        """Take over all parameters as `get_parameters` gives them."""
        self.flat.copy_(torch.tensor(flat))
