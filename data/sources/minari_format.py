"""Datasets of recorded episodes in Minari's format (https://minari.farama.org) as columns of arrays.

Nothing that a dataset names is run: one without spaces is refused, since Minari would make the environment it names.
Without pyarrow, since offline reinforcement learning finds its datasets by this, too.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import InputError, nearest

_SIGNALS = ("rewards", "terminations", "truncations")


def minari_root() -> Path:
    """Where Minari keeps its datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def find_minari(name: str | Path) -> Path:
    """The folder of a dataset's files, by its Minari id or its folder.

    Raises InputError, which names what is there, if there is no such dataset.
    """
    root = minari_root()
    for folder in (Path(name), root / name):
        for path in (folder / "data", folder):
            if (path / "metadata.json").is_file():
                return path
    known = sorted(str(path.parent.parent.relative_to(root)) for path in root.glob("**/data/metadata.json"))
    raise InputError(
        f"there is no dataset {str(name)!r}, neither as a folder nor in {str(root)!r}. {nearest(str(name), known)} "
        "Record one with `shoal record`, or fetch one with `minari download`"
    )


def open_storage(path: Path) -> Any:
    """Minari's reader of the files of a dataset. Raises InputError if they are damaged or say no spaces."""
    try:
        from minari.dataset.minari_storage import MinariStorage
    except ModuleNotFoundError as error:
        raise InputError(f'the package {error.name!r} is not installed: pip install "shoal[minari]"') from error
    try:
        metadata = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
        if not {"observation_space", "action_space"} <= metadata.keys():
            raise InputError(f"the dataset in {str(path)!r} does not say its spaces: write it anew with Minari ≥ 0.5")
        return MinariStorage.read(path)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(f"the dataset in {str(path)!r} is damaged: {error!r}") from error


def episode_lengths(storage: Any) -> np.ndarray:
    """[episodes] int64: steps of each."""
    found = storage.get_episode_metadata(range(storage.total_episodes))
    return np.array([int(entry["total_steps"]) for entry in found], np.int64)


def bytes_of_step(storage: Any) -> int:
    """What a step takes in memory, about: two observations, an action and the signals."""
    return 2 * _bytes_of(storage.observation_space) + _bytes_of(storage.action_space) + 8 * len(_SIGNALS)


def _bytes_of(space: Any) -> int:
    parts = getattr(space, "spaces", None)
    if parts is not None:
        return sum(map(_bytes_of, parts.values() if isinstance(parts, Mapping) else parts))
    return math.prod(space.shape or (1,)) * np.dtype(space.dtype or object).itemsize


def read_episodes(storage: Any, indices: Iterable[int]) -> Iterator[Mapping[str, Any]]:
    """Yield episodes as columns: `observations` [T + 1, …], `actions`, `rewards`, `terminations`, `truncations` [T, …].

    What is nested (Dict, Tuple) becomes a column per leaf, named "observations/position". Raises ValueError, beginning
    with "episode N", where columns do not belong together.
    """
    for raw in storage.get_episodes(list(indices)):
        steps = len(raw["rewards"])
        columns = {**_leaves("observations", raw["observations"]), **_leaves("actions", raw["actions"])}
        columns |= {name: np.asarray(raw[name]) for name in _SIGNALS}
        for name, column in columns.items():
            wanted = steps + 1 if name.partition("/")[0] == "observations" else steps
            if len(column) != wanted:
                raise ValueError(f"episode {raw['id']} has {len(column)} {name} with {steps} rewards; wanted {wanted}")
        yield {"episode": int(raw["id"]), **columns}


def _leaves(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, tuple):
        parts = enumerate(value)
    else:
        return {name: value if isinstance(value, list) else np.asarray(value)}
    return {path: leaf for key, part in parts for path, leaf in _leaves(f"{name}/{key}", part).items()}
