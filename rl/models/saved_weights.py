"""What policies of all kinds have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...envs import describe
from ...runtime import TeachesNames
from ..elsewhere import POLICY, attributes
from ..runs.checkpoint import policy_files, write_policy


class SavedWeights(TeachesNames):
    """A policy's weights: those of a version, and a folder to be saved in."""

    names_elsewhere = attributes(POLICY)
    model: Any
    """With `layout`, `get_weights` and `set_weights`."""
    spec: Any
    """What the model is made from."""
    observation_space: Any
    action_space: Any
    version: int
    """Updates that the weights have seen."""
    env: dict[str, Any] | None
    """Description of the environment of the training; None if unknown."""

    def __repr__(self) -> str:
        seen, taken = (describe(space) for space in (self.observation_space, self.action_space))
        return f"{type(self).__name__}({seen} → {taken}, version {self.version})"

    def get_weights(self) -> np.ndarray:
        """All parameters as one flat float32 array: a copy, in the order of the model's layout."""
        weights: np.ndarray = self.model.get_weights()
        return weights

    def set_weights(self, flat: np.ndarray, version: int) -> None:
        """Take over flat weights as `get_weights` gives them; ValueError if their shape is another."""
        self.model.set_weights(flat)
        self.version = version

    def weights_sha256(self) -> str:
        """SHA-256 over the parameters as little-endian float32, in the order of their names."""
        digest: str = self.model.layout.sha256(self.get_weights())
        return digest

    def save(self, folder: str | Path) -> None:
        """Write policy.json, policy.safetensors and SHA256SUMS into `folder`, made if needed; InputError if a run is
        there."""
        entries = {**self.spec.to_json(), "env": self.env, "version": self.version}
        write_policy(Path(folder), policy_files(entries, self.model.layout, self.get_weights()))
