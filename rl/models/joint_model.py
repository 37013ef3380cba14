"""The models of several policies, which take their weights from one flat array."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..data.memories import of_policies
from .build import build_model
from .joint_spec import JointSpec, joint_layout, policy_seed
from .model import Model


class JointModel:
    """One model for each policy of `spec`; `models` are they, by name.

    A run's `seed` decides with what weights each begins; without one each begins as a model of its spec alone does.
    """

    def __init__(self, spec: JointSpec, *, seed: int | None = None) -> None:
        seeds = {name: 0 if seed is None else policy_seed(seed, name) for name in spec.policies}
        self.models: dict[str, Model] = {
            name: build_model(own, seed=seeds[name]) for name, own in spec.policies.items()
        }
        self.layout = joint_layout({name: model.layout for name, model in self.models.items()})

    def set_weights(self, flat: np.ndarray) -> None:
        """Take over flat weights; ValueError if their shape is another."""
        for name, part in self.split(flat).items():
            self.models[name].set_weights(part)

    def split(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Each policy's part of flat weights, a view; ValueError if their shape is another."""
        self.layout.check(flat)
        ends = list(itertools.accumulate(model.layout.size for model in self.models.values()))
        return dict(zip(self.models, np.split(flat, ends[:-1]), strict=True))

    def get_weights(self) -> np.ndarray:
        """All policies' weights as one flat array, a copy."""
        return np.concatenate([model.get_weights() for model in self.models.values()])

    def initial_memory(self, rows: Mapping[str, int]) -> Any:
        """What is remembered at the beginning, of so many rows of each policy, by "policy/name"; None if nothing is."""
        memories = {name: model.initial_memory(rows[name]) for name, model in self.models.items()}
        return of_policies(memories)


def remember(before: Any, after: Any, acted: np.ndarray) -> Any:
    """The memory [B, …] after a step in which only some rows acted: others keep what they had. None without one."""
    if after is None:
        return None
    rows = torch.from_numpy(acted)
    return {
        name: torch.where(rows.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, before[name]) for name, leaf in after.items()
    }
