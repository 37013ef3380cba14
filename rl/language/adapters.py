"""Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): a layer W x becomes W x + (alpha / rank) B A x, of which A
and B alone are learned. B begins as 0, so a model begins with the very bits that it has without.

The products are never put into W: sampling and learning go through the same additions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Adapter(nn.Module):
    """B A of one layer, which takes `inputs` numbers and gives `outputs`."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.narrow, self.wide = nn.Parameter(torch.empty(rank, inputs)), nn.Parameter(torch.zeros(outputs, rank))
        nn.init.normal_(self.narrow, std=inputs**-0.5)

    def forward(self, rows: Tensor) -> Tensor:
        """What it adds to the layer's outputs [..., outputs], for rows [..., inputs]."""
        return self.scale * linear(linear(rows, self.narrow), self.wide)


def adapted(layer: nn.Module, rows: Tensor) -> Tensor:
    """What a linear layer makes of rows, and its adapter, if it has one, adds."""
    found = linear(rows, layer.weight)  # type: ignore[arg-type]
    adapter = vars(layer).get("adapter")
    return found if adapter is None else found + adapter(rows)


def add_adapters(model: nn.Module, blocks: Iterable[nn.Module], lora: Mapping[str, Any]) -> tuple[str, ...]:
    """Freeze a model and give each block's layers that `lora["targets"]` names an adapter, as the model's submodule
    `adapters`: so that what is learned lies together. Returns what is learned, as `FlatModule.trained`."""
    model.requires_grad_(False)
    made = nn.ModuleDict()
    for index, block in enumerate(blocks):
        for target in lora["targets"]:
            layer = getattr(block, target)
            adapter = Adapter(layer.in_features, layer.out_features, lora["rank"], lora["alpha"])
            made[f"{index}_{target}"] = adapter
            vars(layer)["adapter"] = adapter  # no submodule of the layer: it is one of the model already
    model.adapters = made
    return ("adapters",)
