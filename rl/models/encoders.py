"""Encoders: from encoded observations to features [B, F], on which memory and heads work.

    a vector                 as it is; no parameters
    an image                 a convolutional network
    parts (Dict, Tuple)      each by its kind, side by side; an action mask is left out

Bytes of images become numbers between 0 and 1, channels first, here: until then they take a quarter of the memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...envs import MASK, LeafCodec, codec
from ...runtime import InputError
from .architecture import CONVOLUTIONS, EncoderChoice, image_encoder, image_shape
from .own_modules import load_own_module
from .rows import Parts
from .spec import ModelSpec


class _Images(nn.Module):
    """Bytes [B, H, W, C] or [B, C, H, W], or stacks of them [B, S, …] → numbers in [0, 1], [B, C, H, W]."""

    def __init__(self, leaf: LeafCodec) -> None:
        super().__init__()
        self.shape, self.last = image_shape(leaf.shape)

    def prepare(self, images: Tensor) -> Tensor:
        """Scale, and put the channels first."""
        images = images.movedim(-1, -3) if self.last else images
        return images.reshape(images.shape[0], *self.shape).float() / 255


class NatureCNN(_Images):
    """The network of Mnih et al., 2015: convolutions of 8 × 8 by 4, 4 × 4 by 2, 3 × 3 by 1 to `channels`, then a layer
    of `features` units, each with a rectifier; initial weights orthogonal with √2, as Stable-Baselines3's.
    """

    def __init__(self, leaf: LeafCodec, features: int = 512, channels: tuple[int, int, int] = (32, 64, 64)) -> None:
        super().__init__(leaf)
        self.features = features
        depth, height, width = self.shape
        self.convolutions = nn.ModuleList()
        for outputs, size, step in zip(channels, (8, 4, 3), (4, 2, 1), strict=True):
            self.convolutions.append(nn.Conv2d(depth, outputs, size, step))
            depth, height, width = outputs, (height - size) // step + 1, (width - size) // step + 1
        self.layer = nn.Linear(depth * height * width, features)
        for module in (*self.convolutions, self.layer):
            _orthogonal(module)

    def forward(self, images: Tensor) -> Tensor:
        """Bytes → [B, features]."""
        found = self.prepare(images)
        for convolution in self.convolutions:
            found = convolution(found).relu()
        return self.layer(found.flatten(1)).relu()


class ImpalaCNN(_Images):
    """The residual network of Espeholt et al., 2018 (arXiv 1802.01561, figure 3 right): for each of `channels` a
    convolution, a maximum of 3 × 3 by 2, and two residual blocks; then a layer of `features` units.
    """

    def __init__(self, leaf: LeafCodec, features: int = 256, channels: tuple[int, ...] = (16, 32, 32)) -> None:
        super().__init__(leaf)
        self.features = features
        depth, height, width = self.shape
        blocks = []
        for width_of_block in channels:
            blocks.append(_Residual(depth, width_of_block))
            depth, height, width = width_of_block, (height + 1) // 2, (width + 1) // 2
        self.blocks = nn.ModuleList(blocks)
        self.layer = nn.Linear(depth * height * width, features)
        _orthogonal(self.layer)

    def forward(self, images: Tensor) -> Tensor:
        """Bytes → [B, features]."""
        found = self.prepare(images)
        for block in self.blocks:
            found = block(found)
        return self.layer(found.relu().flatten(1)).relu()


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.pairs = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in range(4))

    def forward(self, found: Tensor) -> Tensor:
        found = nn.functional.max_pool2d(self.entry(found), 3, 2, padding=1)
        for first, second in (self.pairs[:2], self.pairs[2:]):
            found = found + second(first(found.relu()).relu())
        return found


class PerPart(nn.Module):
    """Images each by an encoder of its own, the other parts as they are; side by side."""

    def __init__(self, images: Mapping[str, nn.Module], sizes: Mapping[str, int]) -> None:
        super().__init__()
        self._images, self._names = list(images), list(sizes)
        self.encoders = nn.ModuleList(images.values())
        self.features = sum(sizes.values()) + sum(int(cast(Any, encoder).features) for encoder in images.values())

    def forward(self, rows: Parts) -> Tensor:
        """Parts → [B, F]."""
        seen = [encoder(rows[name]) for name, encoder in zip(self._images, self.encoders, strict=True)]
        return torch.cat([*seen, *(rows[name] for name in self._names)], -1)


_CNNS: dict[str, Any] = {"nature_cnn": NatureCNN, "impala_cnn": ImpalaCNN}


def make_encoder(spec: ModelSpec, chosen: EncoderChoice) -> nn.Module | None:
    """The encoder of a model; None where the encoded observations are the features already.

    A class of the user's is called with the observation space and `encoder_kwargs`; it has `features`, the width of
    what its `forward` gives for encoded observations: a tensor [B, …], or a dict of them for a space with parts.

    Raises InputError if images are too small, or there is no such class.
    """
    name, options = chosen.encoder, dict(chosen.encoder_kwargs)
    if ":" in name:
        return own_module(name, "encoder", spec.observation_space, **options)
    found = codec(spec.observation_space)
    parts = {"/".join(path): leaf for path, leaf in found.leaves() if path != (MASK,)}
    networks = {path: image_encoder(name, leaf.shape) for path, leaf in parts.items() if leaf.is_image}
    images = {path: (_CNNS[chosen], parts[path]) for path, chosen in networks.items() if chosen in CONVOLUTIONS}
    made = {path: network(leaf, **options) for path, (network, leaf) in images.items()}
    if not found.is_nested:
        return next(iter(made.values())) if made else None
    sizes = {path: leaf.row_size for path, leaf in parts.items() if path not in images}
    return PerPart(made, sizes)


def own_module(path: str, slot: str, *arguments: Any, **options: Any) -> nn.Module:
    """Make the module that "package.module:Class" names. Raises InputError if there is none, or it cannot be used."""
    own_class = load_own_module(f"policy_kwargs[{slot!r}]", path)
    try:
        made: nn.Module = own_class(*arguments, **options)
    except TypeError as error:
        raise InputError(f"{slot} {path!r} cannot be made with {slot}_kwargs {options!r}: {error}") from error
    if not isinstance(getattr(made, "features", None), int):
        raise InputError(f"{slot} {path!r} has no attribute `features`, the width of what it gives: set it in __init__")
    buffers = [name for name, _ in made.named_buffers()]
    if buffers:
        raise InputError(
            f"{slot} {path!r} has buffers ({', '.join(buffers)}), which would reach neither the workers nor a "
            "checkpoint: make them parameters"
        )
    return made


def _orthogonal(module: Any) -> None:
    nn.init.orthogonal_(module.weight, math.sqrt(2))
    nn.init.zeros_(module.bias)
