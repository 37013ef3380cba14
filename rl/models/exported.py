"""A policy as a program of torch alone: observations in, the best actions out, without anything of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data import whole_file
from ...envs import LeafCodec, codec, is_central, part_of
from ...runtime import InputError
from .model import Model


class _Acting(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, observations: Any) -> Tensor:
        """Actions [B, …] as `env.step` takes them."""
        rows = self.model.encode_tensors(observations)
        return self.model.environment_tensors(self.model.choose(self.model.outputs(rows), None))


def export_model(model: Model, path: Path) -> None:
    """Write a model whose parameters nobody else uses as a `torch.export` program; InputError for one that cannot be.

    It takes observations [B, *shape], or a dict of them by path where the space has parts, and any number B of rows.
    """
    if path.suffix != ".pt2":
        raise InputError(f"the file is called {path.name!r}, but what torch.export.load reads ends in .pt2")
    if model.memory is not None:
        raise InputError("a policy that remembers cannot be exported: what it remembers would have to go round with it")
    if not isinstance(model.actions, LeafCodec) or is_central(model.spec.observation_space):
        what = "a critic of its own" if isinstance(model.actions, LeafCodec) else "actions of several parts"
        raise InputError(f"a policy with {what} cannot be exported: export policies of one action space")
    for parameter in model.parameters():  # now they are views into one array, all of which would be written
        parameter.data, parameter.grad = parameter.data.clone(), None
    observations = codec(model.spec.observation_space)
    rows = np.empty((2, *observations.shape), observations.dtype)
    rows[:] = observations.filler()
    parts = {"/".join(where): torch.tensor(part_of(rows, where).copy()) for where, _ in observations.leaves()}
    any_number = {0: torch.export.Dim("batch", min=1)}
    example: Any = parts[""] if isinstance(observations, LeafCodec) else parts
    shapes: Any = any_number if isinstance(observations, LeafCodec) else dict.fromkeys(parts, any_number)
    with torch.no_grad():
        program = torch.export.export(_Acting(model).eval(), (example,), dynamic_shapes=(shapes,))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        torch.export.save(program, file)
