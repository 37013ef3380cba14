"""Checkpoints: folders of safetensors and JSON, no pickle; free of torch.

    RUN/checkpoints/000000122880/    one per saved state, named by environment steps; the newest few are kept
        policy.json                  spaces, policy_kwargs, environment, version, SHA-256 of the weights
        policy.safetensors           the parameters by name
        training.json                algorithm, all settings, counters, recent episodes, group states' JSON part
        training.safetensors         optimizer moments, group states' arrays

A folder with only the two policy files is a policy on its own (`Policy.save`). A checkpoint is written to a temporary
folder next to its place and renamed, so that it is there as a whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..envs import space_from_json
from ..runtime import InputError
from .architecture import Architecture, ParameterLayout, parameter_layout

FORMAT = 1
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class SavedPolicy:
    """A policy as read from disk, checked against its hash."""

    metadata: dict[str, Any]
    """policy.json."""
    observation_space: Any
    """gymnasium space."""
    action_space: Any
    """gymnasium space."""
    layout: ParameterLayout
    weights: np.ndarray
    """Flat float32."""


def policy_metadata(folder: str | Path) -> dict[str, Any]:
    """policy.json of a run, checkpoint or policy folder: `observation_space` and `action_space` (see
    `envs.space_from_json`), `policy_kwargs`, `env` (see `EnvSpec.from_json`; None if unknown), `version`,
    `weights_sha256`. Raises InputError if it is missing or damaged."""
    return _read_json(find_checkpoint(folder) / "policy.json")


def load_algorithm_name(folder: str | Path) -> str:
    """Name of the algorithm that wrote the run or checkpoint at `folder`, for example "ppo"; InputError if there is
    none."""
    return str(read_training(folder)[0]["algorithm"])


def find_checkpoint(folder: str | Path) -> Path:
    """The folder that holds the policy files: `folder` itself, or the newest checkpoint of the run at `folder`.

    Raises InputError if `folder` does not exist, is no folder, or holds neither.
    """
    path = Path(folder)
    if not path.exists():
        raise InputError(f"there is no run or policy at {str(path)!r}: the folder does not exist")
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is a file; name the folder of a run, of a checkpoint or of a saved policy")
    if (path / "policy.json").exists():
        return path
    saved = list_checkpoints(path)
    if not saved:
        found = (
            "is empty" if not any(path.iterdir()) else f"has neither a policy.json nor a checkpoint in {CHECKPOINTS}/"
        )
        raise InputError(f"there is no run or policy at {str(path)!r}: the folder {found}")
    return saved[-1]


def list_checkpoints(run: str | Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    parent = Path(run) / CHECKPOINTS
    if not parent.is_dir():
        return []
    return sorted(child for child in parent.iterdir() if child.is_dir() and child.name.isdigit())


def write_policy(folder: Path, metadata: Mapping[str, Any], layout: ParameterLayout, weights: np.ndarray) -> None:
    """Write policy.json and policy.safetensors into `folder`, which exists; each file is replaced as a whole."""
    named = {name: np.ascontiguousarray(array) for name, array in layout.views(weights).items()}
    _write_tensors(folder / "policy.safetensors", named)
    _write_json(folder / "policy.json", {"format": FORMAT, **metadata, "weights_sha256": layout.sha256(weights)})


def read_policy(folder: str | Path) -> SavedPolicy:
    """Read a policy from a run, checkpoint or policy folder; InputError if it is missing, damaged, or its weights
    differ from their hash."""
    path = find_checkpoint(folder)
    metadata = _read_json(path / "policy.json")
    try:
        observation_space = space_from_json(metadata["observation_space"])
        action_space = space_from_json(metadata["action_space"])
        architecture = Architecture.from_policy_kwargs(metadata["policy_kwargs"])
        expected = metadata["weights_sha256"]
    except KeyError as error:
        raise InputError(
            f"{str(path / 'policy.json')!r} lacks the entry {error}: it is damaged or from another program"
        ) from error
    layout = parameter_layout(observation_space, action_space, architecture)
    try:
        weights = layout.flatten(_read_tensors(path / "policy.safetensors"))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path / 'policy.safetensors')!r} does not fit policy.json: {error}") from error
    if layout.sha256(weights) != expected:
        raise InputError(
            f"{str(path / 'policy.safetensors')!r} is damaged: its SHA-256 differs from policy.json. {_advice(path)}"
        )
    return SavedPolicy(metadata, observation_space, action_space, layout, weights)


def write_training(folder: Path, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write training.json and training.safetensors into `folder`, which exists."""
    _write_tensors(folder / "training.safetensors", arrays)
    _write_json(folder / "training.json", {"format": FORMAT, **document})


def read_training(folder: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """training.json and training.safetensors of a run or checkpoint folder; InputError if they are missing or
    damaged."""
    path = find_checkpoint(folder)
    if not (path / "training.json").exists():
        raise InputError(
            f"{str(path)!r} holds a policy, but no training.json: it can be evaluated and served, not trained on"
        )
    return _read_json(path / "training.json"), _read_tensors(path / "training.safetensors")


@contextmanager
def new_checkpoint(run: str | Path, timesteps: int, keep: int) -> Iterator[Path]:
    """A temporary folder that becomes RUN/checkpoints/<timesteps> when the block ends without an exception.

    Replaces a checkpoint of the same name; then removes all but the newest `keep`.
    """
    parent = Path(run) / CHECKPOINTS
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent))
    target = parent / f"{timesteps:012d}"
    try:
        temporary.chmod(0o755)
        yield temporary
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=".replaced-", dir=parent))
            target.rename(old / target.name)
            temporary.rename(target)
            shutil.rmtree(old)
        else:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for outdated in list_checkpoints(run)[:-keep]:
        shutil.rmtree(outdated)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    _replace(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def _write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    temporary = path.with_name(path.name + ".writing")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
    temporary.replace(path)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".writing")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"the checkpoint {str(path.parent)!r} lacks the file {path.name}. {_advice(path.parent)}"
        ) from None
    except ValueError as error:
        raise InputError(f"{str(path)!r} is damaged or cut off: {error}. {_advice(path.parent)}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        seen = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise InputError(f"{str(path)!r} has format {seen!r}, but this version reads format {FORMAT}")
    return document


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise InputError(
            f"the checkpoint {str(path.parent)!r} lacks the file {path.name}. {_advice(path.parent)}"
        ) from None
    except SafetensorError as error:
        raise InputError(f"{str(path)!r} is damaged or cut off: {error}. {_advice(path.parent)}") from None


def _advice(checkpoint: Path) -> str:
    """What to do about a damaged checkpoint: name the newest other one of its run."""
    others = [other for other in list_checkpoints(checkpoint.parent.parent) if other.resolve() != checkpoint.resolve()]
    return f"An older checkpoint is at {str(others[-1])!r}." if others else "There is no older checkpoint of this run."
