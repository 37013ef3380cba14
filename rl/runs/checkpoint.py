"""Checkpoints: folders of safetensors and JSON, no pickle; free of torch.

    RUN/checkpoints/000000122880/    one per saved state, named by environment steps; the newest few are kept
        policy.json                  model, spaces, policy_kwargs, environment, version, SHA-256 of the weights
        policy.safetensors           the parameters by name
        training.json                algorithm, all settings, counters, recent episodes, group states' JSON part
        training.safetensors         the learner's and the groups' arrays
        replay.safetensors           on request, the transitions of the replay buffer (see `replay_file`)
        SHA256SUMS                   of the other files: nothing is used before all of them agree with it
    RUN/checkpoints/best/            the policy that did best in an evaluation during training: the two policy files

A folder without the two training files is a policy on its own (`Policy.save`). A checkpoint is written to a temporary
folder next to its place and renamed, so that it is there as a whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ...runtime import InputError
from ..models.joint_spec import AnySpec, spec_from_json
from ..models.layout import ParameterLayout
from .files import Content, DamagedError, exchange, json_bytes, read_summed, with_sums, write_summed
from .run_lock import check_unlocked, turn_to_write

FORMAT = 3
CHECKPOINTS = "checkpoints"
BEST = "best"
KEPT_CHECKPOINTS = 3
_POLICY_FILES = ("policy.json", "policy.safetensors")
REPLAY_FILE = "replay.safetensors"
MODEL = "model.json"
"""What there is in the place of a policy's files where a model of a table was fitted, beside the library's own file."""
_MODEL_FILES = (MODEL, "model.ubj", "model.txt", "model.safetensors")
_FILES = (*_POLICY_FILES, *_MODEL_FILES, "training.json", "training.safetensors", REPLAY_FILE)
_WRITING = ".writing-"


@dataclass(frozen=True)
class SavedPolicy:
    """A policy as read from disk, compared with its checksums."""

    metadata: dict[str, Any]
    """policy.json."""
    spec: AnySpec
    layout: ParameterLayout
    weights: np.ndarray
    """Flat float32."""
    files: dict[str, bytes]
    """The files of this policy on its own, name to content."""

    def weights_for(self, layout: ParameterLayout) -> np.ndarray:
        """The weights in the order of a model's layout; InputError if they are those of another model."""
        try:
            return layout.flatten(self.layout.views(self.weights))
        except ValueError as error:
            raise InputError(f"policy.safetensors does not fit policy.json: {error}") from error


# ---- where things are


def find_checkpoint(folder: str | Path) -> Path:
    """The folder that holds the policy files: `folder` itself, or the newest checkpoint of the run at `folder`.

    Raises InputError if `folder` does not exist, is no folder, or holds neither; it says what is there instead.
    """
    path = Path(folder)
    if (path / "policy.json").exists() or (path / MODEL).exists():
        return path
    saved = list_checkpoints(path)
    if not saved:
        raise InputError(f"there is no run or policy at {str(path)!r}: {_what_is_there(path)}")
    return saved[-1]


def find_run(folder: str | Path) -> tuple[Path, Path]:
    """The run folder and the checkpoint that a training resumes from: `folder` is a run (its newest checkpoint is
    taken), or one of its checkpoints.

    Raises InputError if `folder` is something else, such as a saved policy; it says what it is.
    """
    checkpoint = find_checkpoint(folder)
    run = run_of(checkpoint)
    if (run / "config.json").exists():
        return run, checkpoint
    if run == checkpoint and not (checkpoint / "training.json").exists():
        raise InputError(
            f"{str(folder)!r} is a saved policy: `shoal evaluate` and `shoal serve` take it, but it does not hold what "
            "a training goes on with. Resume a run"
        )
    raise InputError(
        f"{str(folder)!r} is no run: it holds what a program has saved, without config.json. Continue it in a program, "
        "with the algorithm's load(…)"
    )


def run_of(checkpoint: Path) -> Path:
    """The run that a checkpoint is part of; a policy or checkpoint elsewhere is its own."""
    path = checkpoint.resolve()
    if path.parent.name != CHECKPOINTS or not (path.name.isdigit() or path.name == BEST):
        return checkpoint
    return checkpoint.parent.parent if checkpoint.name == path.name else path.parent.parent


def list_checkpoints(run: str | Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    parent = Path(run) / CHECKPOINTS
    if not parent.is_dir():
        return []
    return sorted(child for child in parent.iterdir() if child.is_dir() and child.name.isdigit())


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return "the folder does not exist"
    if not path.is_dir():
        folder = run_of(path.resolve().parent)
        known = (folder / "policy.json").exists() or (folder / "config.json").exists() or list_checkpoints(folder)
        return f"it is a file{f'. Name the folder {str(folder)!r}' if known else ', not a folder'}"
    if path.resolve().name == CHECKPOINTS and list_checkpoints(path.resolve().parent):
        return f"it holds the checkpoints of a run. Name the run, {str(path.resolve().parent)!r}, or one of them"
    if (path / "config.json").exists():
        return "the run there has no checkpoint, since no iteration of it was finished"
    runs = sorted(child.name for child in path.iterdir() if child.is_dir() and list_checkpoints(child))
    if runs:
        return f"it holds runs. Name one: {', '.join(runs[:5])}{' …' if len(runs) > 5 else ''}"
    return "the folder is empty" if not any(path.iterdir()) else f"the folder has no policy.json and no {CHECKPOINTS}/"


# ---- reading


def policy_metadata(folder: str | Path) -> dict[str, Any]:
    """policy.json of a run, checkpoint or policy folder: `observation_space` and `action_space` (see
    `envs.space_from_json`), `policy_kwargs`, `env` (see `envs.spec_from_json`; None if unknown), `version`,
    `weights_sha256`. Raises InputError if it is missing or damaged."""
    path = find_checkpoint(folder)
    return _policy_document(path, read_files(path))


def _policy_document(path: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    document = read_json(path, "policy.json", files)
    env = document.get("env")
    if env is not None and not (isinstance(env, dict) and isinstance(env.get("id"), str)):
        raise InputError(f"{str(path / 'policy.json')!r} is damaged: its entry 'env' is {env!r:.80}")
    return document


def load_algorithm_name(folder: str | Path) -> str:
    """Name of the algorithm that wrote the run or checkpoint at `folder`, for example "ppo"; InputError if there is
    none."""
    path = find_checkpoint(folder)
    return str(read_json(path, "training.json", read_files(path))["algorithm"])


def holds_model(folder: str | Path) -> bool:
    """Whether what a run, checkpoint or policy folder holds is a model of a table; InputError if it holds nothing."""
    return (find_checkpoint(folder) / MODEL).exists()


def read_policy(folder: str | Path) -> SavedPolicy:
    """Read a policy from a run, checkpoint or policy folder; InputError if any file of it is missing or damaged, or if
    a network of the user's own that it names is not there, or lies in the run: what a run holds is not run."""
    path = find_checkpoint(folder)
    return saved_policy(read_files(path), path, run_of(path))


def saved_policy(files: Mapping[str, bytes], path: Path, run: Path | None = None) -> SavedPolicy:
    """As `read_policy`, of files that were read from `path`, name to content; without a `run`, a network of the user's
    own may lie anywhere."""
    metadata = _policy_document(path, files)
    try:
        spec, order = spec_from_json(metadata), metadata["parameters"]
    except KeyError as error:
        raise InputError(
            f"{str(path / 'policy.json')!r} lacks the entry {error}: it is damaged or from another program"
        ) from error
    except InputError as error:
        raise InputError(f"{str(path / 'policy.json')!r}: {error}") from error
    spec.check_own_modules(run)
    named = _parse_tensors(path, "policy.safetensors", files)
    if named.keys() != set(order):
        odd = ", ".join(sorted(named.keys() ^ set(order)))
        raise InputError(f"{str(path / 'policy.safetensors')!r} does not fit policy.json: only one of them has {odd}")
    layout = ParameterLayout({name: named[name].shape for name in order})
    policy_files = with_sums({name: files[name] for name in _POLICY_FILES})
    return SavedPolicy(metadata, spec, layout, layout.flatten(named), policy_files)


def read_training(folder: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """training.json and training.safetensors of a run or checkpoint folder; InputError if any file of the checkpoint
    is missing or damaged."""
    path = find_checkpoint(folder)
    files = read_files(path)
    if "training.json" not in files:
        raise InputError(
            f"{str(path)!r} holds a policy, but no training.json: it can be evaluated and served, not trained on"
        )
    return read_json(path, "training.json", files), _parse_tensors(path, "training.safetensors", files)


def read_files(folder: str | Path) -> dict[str, bytes]:
    """All files of a run's newest checkpoint, a checkpoint or a policy, verified, name to content, without the replay
    buffer. InputError names what is damaged, and the newest other checkpoint that is whole."""
    checkpoint = find_checkpoint(folder)
    try:
        return read_summed(checkpoint, _FILES, large=[REPLAY_FILE])
    except DamagedError as error:
        raise InputError(f"{error}. {_advice(checkpoint)}") from None


def _advice(damaged: Path) -> str:
    run = run_of(damaged)
    others = [other for other in list_checkpoints(run) if other.resolve() != damaged.resolve()]
    good = next((other for other in reversed(others) if _is_whole(other)), None)
    if good is None:
        return "There is no other checkpoint that is good"
    command = "fit" if (good / MODEL).exists() else "train"
    resume = f" with: shoal {command} --resume {good}" if (run / "config.json").exists() else ""
    return f"The previous good checkpoint is {str(good)!r}. Continue from it{resume}"


def _is_whole(checkpoint: Path) -> bool:
    try:
        read_summed(checkpoint, _FILES, large=[REPLAY_FILE])
    except DamagedError:
        return False
    return True


def read_json(folder: Path, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """A JSON file of those that were read from a folder; InputError if it is missing, or of another format."""
    if name not in files:
        raise InputError(f"{str(folder)!r} holds no {name}: it is not from this program")
    try:
        document = json.loads(files[name])
    except ValueError as error:
        raise InputError(f"{str(folder / name)!r} is no JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        seen = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise InputError(f"{str(folder / name)!r} has format {seen!r}, but this version reads format {FORMAT}")
    return document


def _parse_tensors(folder: Path, name: str, files: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    if name not in files:
        raise InputError(f"{str(folder)!r} holds no {name}: it is not from this program")
    try:
        return dict(safetensors.numpy.load(files[name]))
    except SafetensorError as error:
        raise InputError(f"{str(folder / name)!r} does not hold tensors: {error}") from None


# ---- writing


def policy_files(metadata: Mapping[str, Any], layout: ParameterLayout, weights: np.ndarray) -> dict[str, bytes]:
    """policy.json and policy.safetensors, name to content."""
    described = {"parameters": list(layout.shapes), "weights_sha256": layout.sha256(weights)}
    document = {"format": FORMAT, **metadata, **described}
    return {"policy.json": json_bytes(document), "policy.safetensors": _tensor_bytes(layout.views(weights))}


def training_files(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """training.json and training.safetensors, name to content."""
    return {
        "training.json": json_bytes({"format": FORMAT, **document}),
        "training.safetensors": _tensor_bytes(arrays),
    }


def write_policy(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a policy on its own into `folder`, made if needed. InputError if a run is there, which it would hide."""
    if (folder / "config.json").exists() or list_checkpoints(folder):
        raise InputError(f"{str(folder)!r} is the folder of a run: save the policy into another one")
    folder.mkdir(parents=True, exist_ok=True)
    write_summed(folder, files)


def write_checkpoint(
    run: str | Path, timesteps: int, files: Mapping[str, Content], keep: int = KEPT_CHECKPOINTS
) -> Path:
    """Write RUN/checkpoints/<timesteps> and remove all but the newest `keep`; returns its folder.

    It appears as a whole; one of the same name is there until then. Raises InputError if a training of another process
    writes to that run, or a saved policy is there; OSError if it cannot be written.
    """
    if (Path(run) / "policy.json").exists():
        raise InputError(f"{str(run)!r} is the folder of a saved policy: save the run into another one")
    check_unlocked(run)
    target = Path(run) / CHECKPOINTS / f"{timesteps:012d}"
    _write_whole(target, files)
    with turn_to_write(target.parent):
        for outdated in list_checkpoints(run)[:-keep]:
            _remove(outdated)
    return target


def write_best(run: str | Path, files: Mapping[str, bytes]) -> Path:
    """Write RUN/checkpoints/best, in place of an older one; returns its folder. Raises as `write_checkpoint` does."""
    check_unlocked(run)
    target = Path(run) / CHECKPOINTS / BEST
    _write_whole(target, files)
    return target


def _write_whole(target: Path, files: Mapping[str, Content]) -> None:
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    with turn_to_write(parent):
        for left in parent.glob(f"{_WRITING}*"):  # by a process that was killed: it is nobody else's turn
            shutil.rmtree(left)
        temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=parent))
        try:
            temporary.chmod(0o755)
            write_summed(temporary, files)
            _put_in_place(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def drop_newer(run: str | Path, timesteps: int, *, good_ones: bool) -> None:
    """Remove a run's checkpoints of more than `timesteps` steps, where a training is going on from: they would count as
    newer than what it writes.

    Raises InputError if one of them is whole, unless `good_ones` may go, too.
    """
    newer = [checkpoint for checkpoint in list_checkpoints(run) if int(checkpoint.name) > timesteps]
    for checkpoint in newer if not good_ones else ():
        if _is_whole(checkpoint):
            raise InputError(
                f"run {str(run)!r} has a later checkpoint than the one of {timesteps} steps that was loaded: "
                f"{checkpoint.name}. Resume the run from there, or let it be replaced with --overwrite"
            )
    for checkpoint in newer:
        _remove(checkpoint)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint: at no moment is a part of it left under its name."""
    temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=checkpoint.parent))
    checkpoint.rename(temporary / checkpoint.name)
    shutil.rmtree(temporary)


def _put_in_place(temporary: Path, target: Path) -> None:
    """Give a finished folder its name; afterwards `temporary` is the older one of that name, if there was one."""
    if not target.exists():
        temporary.rename(target)
        return
    try:
        exchange(temporary, target)
    except OSError:  # a file system that cannot, such as some network ones: two steps are the next best
        older = temporary.with_name(f"{temporary.name}-older")
        target.rename(older)
        temporary.rename(target)
        older.rename(temporary)


def _tensor_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    return bytes(safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
