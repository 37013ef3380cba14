"""A training as one of its checkpoints holds it: what to go on with, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...envs import EnvSpec, resolve, spec_from_json
from ...runtime import InputError
from ..chosen_settings import split_settings
from ..learn.log import Piece
from ..models.joint_spec import AnySpec
from ..settings import FREE, RunSettings
from ..training_state import Recent, TrainingState, state_from_arrays, state_to_arrays
from .checkpoint import REPLAY_FILE, SavedPolicy, find_checkpoint, read_policy, read_training, run_of, training_files
from .files import Content, understood
from .league_files import read_league
from .replay_file import SavedReplay, buffers_of, describe_replay, replay_parts

_ENTRIES = (
    "algorithm", "environment", "run", "hyperparameters", "preset",
    "iteration", "timesteps", "version", "records", "learner", "groups", "recent", "evaluations", "league",
)  # fmt: skip
"""Of training.json, without which no training goes on."""


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
    replay: SavedReplay | None
    """The replay buffer's transitions, if they were saved."""

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
        with understood(self.folder / "training.json"):
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
        transitions = () if self.replay is None else self.replay.pieces(buffers_of(self.policy.spec))
        with understood(self.folder / "training.json"):
            state = state_from_arrays(self.document, self.arrays, self.policy.weights, transitions)
        return replace(state, league=read_league(run_of(self.folder), self.document["league"]))


def split_changes(changes: Mapping[str, Any], config_class: type, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of what shall change where a training goes on: the run settings that may, those given as None left out, and the
    hyperparameters. Raises InputError for any other; `what` is given them, for its message."""
    free = {name: changes[name] for name in FREE if changes.get(name) is not None}
    changed = {name: value for name, value in changes.items() if name not in FREE}
    kept = {item.name for item in fields(RunSettings)}
    for name in changed:
        if name in kept:
            raise InputError(
                f"{name} cannot be given to {what}: a training goes on with the run settings it began with, except "
                f"{', '.join(FREE)}. A new training begins with its weights by initial=FOLDER"
            )
    split_settings(changed, [config_class], what)
    return free, changed


def saved_files(
    state: TrainingState,
    learner: Mapping[str, Any],
    transitions: Sequence[Piece] | None,
    spec: AnySpec,
    settings: Mapping[str, Any],
) -> dict[str, Content]:
    """What `read_saved_training` needs beside the policy's files: where a training stands, what its learner is there,
    and the transitions of its replay buffer, if they are to be saved."""
    if transitions is None:
        document, arrays = state_to_arrays(state, {**learner, "replay": None})
        return {**training_files({**document, **settings, "replay": None}, arrays)}
    buffers = buffers_of(spec)
    document, arrays = state_to_arrays(state, dict(learner))
    files = training_files({**document, **settings, "replay": describe_replay(transitions, buffers)}, arrays)
    return {**files, REPLAY_FILE: replay_parts(transitions, buffers)}


def read_saved_training(folder: str | Path, algorithm: str) -> SavedTraining:
    """Read a run's newest checkpoint, or one checkpoint; InputError if there is none, or it is damaged or of another
    algorithm."""
    checkpoint = find_checkpoint(folder)  # once: a training that goes on there may write another one meanwhile
    document, arrays = read_training(checkpoint)
    for name in _ENTRIES:
        if name not in document:
            raise InputError(
                f"{str(checkpoint / 'training.json')!r} lacks the entry {name!r}: it is damaged or from another program"
            )
    if document["algorithm"] != algorithm:
        raise InputError(
            f"the checkpoint at {str(checkpoint)!r} is of algorithm {document['algorithm']!r}, not {algorithm!r}"
        )
    described = document.get("replay")
    replay = None if described is None else SavedReplay(checkpoint / REPLAY_FILE, described["ends"])
    return SavedTraining(checkpoint, document, arrays, read_policy(checkpoint), replay)
