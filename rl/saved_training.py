"""A training as one of its checkpoints holds it: what to go on with, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..envs import EnvSpec, resolve, spec_from_json
from ..runtime import InputError
from .checkpoint import SavedPolicy, find_checkpoint, read_policy, read_training, run_of
from .training_state import Recent, TrainingState, state_from_arrays


@dataclass(frozen=True)
class SavedTraining:
    """A checkpoint, read and compared with its checksums."""

    folder: Path
    """The checkpoint."""
    document: dict[str, Any]
    """training.json."""
    arrays: dict[str, np.ndarray]
    """training.safetensors."""
    policy: SavedPolicy
    """The policy beside it."""

    @property
    def timesteps(self) -> int:
        """Environment steps done."""
        return int(self.document["timesteps"])

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return int(self.document["iteration"])

    @property
    def recent(self) -> Recent:
        """Return and length of the last 100 finished episodes, oldest first."""
        return tuple((float(return_), int(length)) for return_, length in self.document["recent"])

    def spec(self, env: Any) -> EnvSpec:
        """The environment: the one that was described, or `env` in its place, an id, class or factory.

        By whatever name, it is this training's; where it has no time limit of its own, as a class has none, that of
        the training stays. Raises InputError if it cannot be found.
        """
        described = self.document["environment"]
        if env is None:
            return spec_from_json(described, folder=run_of(self.folder))
        given = resolve(env, described["kwargs"])
        limit = given.max_episode_steps or described["max_episode_steps"]
        return replace(given, id=described["id"], max_episode_steps=limit)

    def hyperparameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The saved hyperparameters, with those `given` in their place; InputError if a function is missing."""
        config = self.document["hyperparameters"] | given
        for name, value in config.items():
            if isinstance(value, dict) and "function" in value:
                raise InputError(f"{name} was a function, which a checkpoint does not hold: pass {name}=… to load")
        return config

    def state(self) -> TrainingState:
        """The state to go on from; its arrays go into the object store."""
        return state_from_arrays(self.document, self.arrays, self.policy.weights)


def read_saved_training(folder: str | Path, algorithm: str) -> SavedTraining:
    """Read a run's newest checkpoint, or one checkpoint; InputError if there is none, or it is damaged or of another
    algorithm."""
    checkpoint = find_checkpoint(folder)  # once: a training that goes on there may write another one meanwhile
    document, arrays = read_training(checkpoint)
    if document["algorithm"] != algorithm:
        raise InputError(
            f"the checkpoint at {str(checkpoint)!r} is of algorithm {document['algorithm']!r}, not {algorithm!r}"
        )
    return SavedTraining(checkpoint, document, arrays, read_policy(checkpoint))
