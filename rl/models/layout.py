"""Where each named parameter lies in one flat array; free of torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


class ParameterLayout:
    """Parameters lie in the flat array in the order of `shapes`, without gaps."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            self.offsets[name] = self.size
            self.size += math.prod(shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParameterLayout) and list(self.shapes.items()) == list(other.shapes.items())

    __hash__ = None  # type: ignore[assignment]

    def views(self, flat: Any) -> dict[str, Any]:
        """Each parameter as a view into `flat`, which is a numpy array or a torch tensor of shape [size]."""
        self.check(flat)
        return {
            name: flat[self.offsets[name] : self.offsets[name] + math.prod(shape)].reshape(shape)
            for name, shape in self.shapes.items()
        }

    def check(self, flat: Any) -> None:
        """Raise ValueError if `flat` has another size."""
        if tuple(flat.shape) != (self.size,):
            raise ValueError(
                f"the flat weights have shape {tuple(flat.shape)}, but this network has {self.size} parameters: "
                f"({self.size},)"
            )

    def flatten(self, named: Mapping[str, np.ndarray]) -> np.ndarray:
        """The flat float32 array that holds the parameters `named`. Raises ValueError naming what is missing, unknown
        or misshapen."""
        shapes = {name: tuple(array.shape) for name, array in named.items()}
        wrong = sorted(name for name in shapes.keys() | self.shapes.keys() if shapes.get(name) != self.shapes.get(name))
        if wrong:
            details = ", ".join(f"{name}: got {shapes.get(name)}, need {self.shapes.get(name)}" for name in wrong)
            raise ValueError(f"these parameters do not fit the network: {details}")
        return np.concatenate([np.asarray(named[name], dtype=np.float32).ravel() for name in self.shapes])

    def sha256(self, flat: np.ndarray) -> str:
        """SHA-256 over the parameters as little-endian float32, in the order of their names."""
        views = self.views(flat)
        digest = hashlib.sha256()
        for name in sorted(views):
            digest.update(np.ascontiguousarray(views[name], dtype="<f4").tobytes())
        return digest.hexdigest()
