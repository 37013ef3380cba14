"""A network of a table or stream: what it is, and how it predicts; torch is loaded when needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...envs import derive_seed
from ...runtime import InputError
from ..lazy import load, torch
from ..models.own_modules import check_import_path, load_own_module
from ..threads import limit_torch_threads
from .fitted import FittedModel
from .stream import Stream
from .table import Table, TableSchema

if TYPE_CHECKING:
    from torch import Tensor, nn

_PREDICTED_TOGETHER = 1024


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is, as JSON holds it.

    Attributes:
        module: "mlp" (`TableNetwork`), or "package.module:Class" of the user's own.
        module_kwargs: arguments of its constructor.
        input_shape: of a row, where it is no vector, such as (1, 8, 8).
        outputs: numbers for each row.
        categories, mean, std: of each feature, for `TableNetwork`, which see.
    """

    module: str
    module_kwargs: Mapping[str, Any]
    input_shape: tuple[int, ...]
    outputs: int
    categories: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, table: Table | Stream, module: str, module_kwargs: Mapping[str, Any], input_shape: str) -> NetworkSpec:
        """The network for the rows that are learned from; InputError if they do not have that shape, sizes with commas
        between them."""
        own, numbers = table.schema.row_shape, int(np.prod(table.schema.row_shape))
        shape = _read_shape(input_shape) or ((numbers,) if module == "mlp" else own)
        if int(np.prod(shape)) != numbers:
            raise InputError(
                f"input_shape is {list(shape)}, which is {int(np.prod(shape))} numbers, but a row has {numbers} "
                "features"
            )
        mean, std = table.moments() if module == "mlp" else (np.empty(0), np.empty(0))
        categories = (
            [len(feature.categories or ()) for feature in table.schema.features for _ in range(feature.size)]
            if module == "mlp"
            else []
        )
        outputs = 1 if table.schema.classes is None else len(table.schema.classes)
        return cls(
            module, dict(module_kwargs), shape, outputs, tuple(categories), tuple(mean.tolist()), tuple(std.tolist())
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NetworkSpec:
        """The way back."""
        entries: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
        }
        return cls(**entries)

    def check(self, folder: Path | None = None) -> None:
        """Raise InputError if there is no such module; none that lies in `folder` is imported."""
        if self.module != "mlp":
            check_import_path("module", self.module, folder)

    def build(self, seed: int = 0) -> nn.Module:
        """The network, with weights that the seed says. Imports torch."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "init"))
            if self.module != "mlp":
                return load_own_module("module", self.module)(**self.module_kwargs)
            known = self.categories, self.mean, self.std, self.outputs
            made: nn.Module = load("TableNetwork")(*known, **self.module_kwargs)
            return made

    def outputs_of(self, network: nn.Module, features: Tensor) -> Tensor:
        """What the network says of rows [B, F]: [B, classes], or [B] of a quantity; InputError if it says else."""
        said: Tensor = network(features.reshape(len(features), *self.input_shape))
        if said.shape != (len(features), self.outputs):
            raise InputError(
                f"module {self.module!r} gives outputs of shape {list(said.shape)} for {len(features)} rows, but must "
                f"give [{len(features)}, {self.outputs}]"
            )
        return said if self.outputs > 1 else said[:, 0]


def _read_shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(",") if size.strip())
    except ValueError:
        raise InputError(f"input_shape is {text!r}, but must be whole numbers, such as 1,8,8") from None


class NetworkModel(FittedModel):
    """A network, saved as safetensors."""

    kind = "network"
    file = "model.safetensors"

    def __init__(self, schema: TableSchema, content: bytes, rounds: int, details: Mapping[str, Any]) -> None:
        super().__init__(schema, content, rounds, details)
        self._spec = NetworkSpec.from_json(details)
        self._spec.check()

    @cached_property
    def _network(self) -> nn.Module:
        from safetensors.torch import load as tensors_of

        network = self._spec.build()
        network.load_state_dict(tensors_of(self.content))
        return network.eval()

    def predict(self, features: np.ndarray) -> np.ndarray:
        """As `FittedModel.predict`."""
        limit_torch_threads(1)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(features), _PREDICTED_TOGETHER):
                rows = torch.from_numpy(np.array(features[start : start + _PREDICTED_TOGETHER], np.float32))
                said = self._spec.outputs_of(self._network, rows)
                parts.append((said.softmax(dim=1) if self.schema.classes is not None else said).numpy())
        return np.concatenate(parts)
