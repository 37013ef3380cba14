"""A policy: a model that acts between an environment's observations and its actions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ...envs import MaskGuard, as_batch, codec, is_central, own_space, put_own, stream
from ..data.memories import remembered_before
from ..runs.checkpoint import read_policy
from ..runs.one_policy import one_policy
from .build import build_model
from .exported import export_model
from .model import Model
from .saved_weights import SavedWeights
from .spec import ModelSpec


class Policy(SavedWeights):
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
        self._begin(spec, seed, device)

    def _begin(self, spec: ModelSpec, seed: int, device: str) -> None:
        self.model: Model = build_model(spec, seed=seed, device=device)
        self.spec = spec
        self.version = 0
        self.env: dict[str, Any] | None = None
        self._stream = stream(seed, "act")
        self._masks = MaskGuard(codec(self.observation_space), codec(spec.action_space))

    @classmethod
    def of(cls, spec: ModelSpec, *, seed: int = 0, device: str = "cpu") -> Policy:
        """A policy with the model of `spec`."""
        policy = cls.__new__(cls)
        policy._begin(spec, seed, device)
        return policy

    @property
    def observation_space(self) -> spaces.Space:
        """What it observes; not what only a critic sees of several agents."""
        return own_space(self.spec.observation_space)

    @property
    def action_space(self) -> spaces.Space:
        """What it chooses from."""
        return self.spec.action_space

    def act(
        self, observations: Any, *, deterministic: bool = False, noise_stream: np.random.Generator | None = None
    ) -> np.ndarray:
        """Actions for `env.step`: for one observation of shape `space.shape` one action, for a batch [B, …] a batch.

        `deterministic` takes the best action; else `noise_stream` (default: a stream of the policy's own) decides.
        Of a space with parts, observations and actions are nested as the space is. Raises ValueError if the
        observations have another shape (both are named), hold what is not finite, what is outside a discrete space, or
        a mask that allows nothing; if no finite actions come of them; or if the policy has a memory, see
        `act_with_memory`.
        """
        if self.model.memory is not None:
            raise ValueError(
                "this policy remembers earlier observations of an episode: use act_with_memory(observations, memory), "
                "which begins with initial_memory(rows)"
            )
        return self._act(observations, None, deterministic, noise_stream)[0]

    def initial_memory(self, rows: int) -> dict[str, np.ndarray] | None:
        """What is remembered at the beginning of `rows` episodes: arrays [rows, …] of zeros; None without a memory."""
        memory = self.model.initial_memory(rows)
        return None if memory is None else {name: leaf.cpu().numpy() for name, leaf in memory.items()}

    def act_with_memory(
        self,
        observations: Any,
        memory: Mapping[str, np.ndarray] | None = None,
        episode_start: Any = None,
        *,
        deterministic: bool = False,
        noise_stream: np.random.Generator | None = None,
    ) -> tuple[Any, dict[str, np.ndarray] | None]:
        """As `act`, and what is remembered after it: the `memory` of the next call.

        memory: what the last call returned, arrays [rows, …] for as many observations (one observation has a row); None
        where all episodes begin.
        episode_start: [rows] bool, or one for all: where an episode begins, so that nothing before it is remembered.
        A policy without memory takes and returns None.

        Raises ValueError as `act`, or if the memory is of another number of observations.
        """
        return self._act(observations, memory, deterministic, noise_stream, episode_start)

    def _act(
        self,
        observations: Any,
        memory: Any,
        deterministic: bool,
        noise_stream: np.random.Generator | None,
        episode_start: Any = None,
    ) -> tuple[Any, Any]:
        rows, single = as_batch(self.observation_space, observations)
        self._masks.check(rows)
        if is_central(self.spec.observation_space):
            own, rows = rows, np.empty(len(rows), codec(self.spec.observation_space).dtype)
            put_own(rows, own)
        memory = remembered_before(memory, self.initial_memory(len(rows)), episode_start)
        noise: Tensor | None = None
        if not deterministic:
            drawn = self.model.draw_noise(noise_stream or self._stream, (len(rows),))
            noise = torch.from_numpy(drawn).to(self.model.flat.device)
        with torch.inference_mode():
            before = None if memory is None else {name: self._tensor(array) for name, array in memory.items()}
            encoded, after = self.model.recall(self.model.encode(rows), before)
            outputs = self.model.outputs(encoded)
            chosen = self.model.choose(outputs, noise).cpu().numpy()
        self.model.check_finite(rows, output=outputs.cpu().numpy(), action=chosen)
        actions = self.model.environment_actions(chosen)
        remembered = None if after is None else {name: leaf.cpu().numpy() for name, leaf in after.items()}
        return self.model.actions.unpack(actions[0] if single else actions), remembered

    def export(self, path: str | Path) -> Path:
        """Write a program of torch alone that takes the best actions; return its path.

        `torch.export.load(path).module()` needs nothing of this package. It takes observations [B, *shape] as a tensor
        of the space's dtype, or a dict of such parts by their paths, such as "arm/angles", and returns actions
        [B, *shape] as `env.step` takes them; any number of rows.

        Raises InputError for a policy with a memory, a central critic or an action space with parts.
        """
        model = build_model(self.spec, seed=0, device="cpu")
        model.set_weights(self.get_weights())
        export_model(model, Path(path))
        return Path(path)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.model.flat.device)

    @staticmethod
    def load(folder: str | Path, *, name: str | None = None, device: str = "cpu") -> Policy:
        """Read a policy from a policy folder, a checkpoint, or a run (its newest checkpoint); InputError if there is
        none or it is damaged. Of several agents, the policy `name`, or that of the agent `name`; `load_policy` reads
        all of them together."""
        saved = one_policy(read_policy(folder), name)
        assert isinstance(saved.spec, ModelSpec)
        policy = Policy.of(saved.spec, device=device)
        policy.set_weights(saved.weights_for(policy.model.layout), int(saved.metadata["version"]))
        policy.env = saved.metadata.get("env")
        return policy
