"""A policy: a model that acts between an environment's observations and its actions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ...envs import as_batch, stream
from ..checkpoint import policy_files, read_policy, write_policy
from .build import build_model
from .model import Model
from .spec import ModelSpec


class Policy:
    """Chooses actions for observations of `observation_space`.

    Args:
        observation_space, action_space: gymnasium's.
        policy_kwargs: choices of the network, fields of the model's architecture.
        seed: decides the initial weights and the actions that `act` draws.
        device: where it computes.
        model: kind of model: "actor_critic" or "q_network".

    Raises InputError for spaces or `policy_kwargs` that are not supported.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        policy_kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        model: str = "actor_critic",
    ) -> None:
        spec = ModelSpec(model, observation_space, action_space, dict(policy_kwargs or {}))
        self.model: Model = build_model(spec, seed=seed, device=device)
        self.spec = spec
        self.version = 0
        self.env: dict[str, Any] | None = None
        self._stream = stream(seed, "act")

    @property
    def observation_space(self) -> spaces.Space:
        """What it observes."""
        return self.spec.observation_space

    @property
    def action_space(self) -> spaces.Space:
        """What it chooses from."""
        return self.spec.action_space

    def act(
        self, observations: Any, *, deterministic: bool = False, noise_stream: np.random.Generator | None = None
    ) -> np.ndarray:
        """Actions for `env.step`: for one observation of shape `space.shape` one action, for a batch [B, …] a batch.

        `deterministic` takes the best action; else `noise_stream` (default: a stream of the policy's own) decides.
        Raises ValueError if the observations have another shape (both are named), hold what is not finite or outside a
        discrete space, or if no finite actions come of them.
        """
        rows, single = as_batch(self.observation_space, observations)
        noise: Tensor | None = None
        if not deterministic:
            drawn = self.model.draw_noise(noise_stream or self._stream, (len(rows),))
            noise = torch.from_numpy(drawn).to(self.model.flat.device)
        with torch.inference_mode():
            outputs = self.model.outputs(self.model.encode(rows))
            chosen = self.model.choose(outputs, noise).cpu().numpy()
        self.model.check_finite(rows, output=outputs.cpu().numpy(), action=chosen)
        actions = self.model.environment_actions(chosen)
        return actions[0] if single else actions

    def get_weights(self) -> np.ndarray:
        """All parameters as one flat float32 array: a copy, in the order of the model's layout."""
        return self.model.get_weights()

    def set_weights(self, flat: np.ndarray, version: int) -> None:
        """Take over flat weights as `get_weights` gives them; ValueError if their shape is another."""
        self.model.set_weights(flat)
        self.version = version

    def weights_sha256(self) -> str:
        """SHA-256 over the parameters as little-endian float32, in the order of their names."""
        return self.model.layout.sha256(self.get_weights())

    def save(self, folder: str | Path) -> None:
        """Write policy.json, policy.safetensors and SHA256SUMS into `folder`, made if needed; InputError if a run is
        there."""
        entries = {**self.spec.to_json(), "env": self.env, "version": self.version}
        write_policy(Path(folder), policy_files(entries, self.model.layout, self.get_weights()))

    @staticmethod
    def load(folder: str | Path, *, device: str = "cpu") -> Policy:
        """Read a policy from a policy folder, a checkpoint, or a run (its newest checkpoint); InputError if there is
        none or it is damaged."""
        saved = read_policy(folder)
        spec = saved.spec
        policy = Policy(
            spec.observation_space, spec.action_space, policy_kwargs=spec.policy_kwargs, device=device, model=spec.kind
        )
        policy.set_weights(saved.weights_for(policy.model.layout), int(saved.metadata["version"]))
        policy.env = saved.metadata.get("env")
        return policy
