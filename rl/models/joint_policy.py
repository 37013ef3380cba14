"""The policies of several agents together, as one that acts in the joint environment; and what loads either kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...envs import stream
from ...runtime import InputError
from ..data.memories import Memory
from .joint_acting import JointActing
from .joint_model import JointModel, remember
from .joint_spec import JointSpec, policy_seed
from .policy import Policy
from .saved_weights import SavedWeights


class JointPolicy(SavedWeights, JointActing):
    """Chooses the actions of all agents: a joint observation in, a joint action out, as `JointEnv` has them.

    Attributes:
        spec: policies and who acts by which.
        version: updates that the weights have seen.
        env: description of the environment of the training; None if unknown.
    """

    def __init__(self, spec: JointSpec, *, seed: int = 0) -> None:
        super().__init__(spec)
        self.version = 0
        self.env: dict[str, Any] | None = None
        self.model = JointModel(spec, seed=seed)
        self._streams = {name: stream(policy_seed(seed, name), "act") for name in spec.policies}

    def _initial(self, name: str, rows: int) -> Memory | None:
        memory = self.model.models[name].initial_memory(rows)
        return None if memory is None else {key: leaf.numpy() for key, leaf in memory.items()}

    def _choose(
        self, name: str, rows: np.ndarray, acts: np.ndarray, memory: Memory | None, *, deterministic: bool
    ) -> tuple[np.ndarray, Memory | None]:
        model = self.model.models[name]
        noise = None if deterministic else torch.from_numpy(model.draw_noise(self._streams[name], (len(rows),)))
        with torch.inference_mode():
            before = None if memory is None else {key: torch.tensor(leaf) for key, leaf in memory.items()}
            encoded, after = model.recall(model.encode(rows), before)
            chosen = model.choose(model.outputs(encoded), noise).numpy()
            after = remember(before, after, acts)
        model.check_finite(rows, action=chosen)
        kept = None if after is None else {key: leaf.numpy() for key, leaf in after.items()}
        return model.environment_actions(chosen), kept

    def policy(self, name: str) -> Policy:
        """One of the policies on its own, with the weights of now. InputError, with the others' names, if there is none
        of that name."""
        if name not in self.spec.policies:
            raise InputError(f"there is no policy {name!r}, but {', '.join(self.spec.policies)}")
        policy = Policy.of(self.spec.policies[name])
        policy.set_weights(self.model.models[name].get_weights(), self.version)
        return policy
