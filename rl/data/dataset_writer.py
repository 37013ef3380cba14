"""Writing a dataset in Minari's format, which appears under its name once it is whole.

Arrays are written as they are: Minari would compress images with losses.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gymnasium import Space
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from ...data import minari_root
from ...envs import codec, space_to_json
from ...runtime import InputError
from .dataset import LOG_PROBS, OWN_ENTRY, RecordedEpisode, require_minari

_ID = re.compile(r"(?:[-\w]+/)*[-\w]+?-v\d+")


def check_dataset_id(dataset_id: str, *, overwrite: bool = False) -> Path:
    """The folder of a dataset that may be written.

    Raises InputError if the id is none of Minari's, or such a dataset is there and may not be replaced.
    """
    require_minari()
    if not _ID.fullmatch(dataset_id):
        raise InputError(
            f"the dataset's id is {dataset_id!r}, but must be NAME-vNUMBER, perhaps in folders: cartpole/expert-v0"
        )
    folder = minari_root() / dataset_id
    if folder.exists() and not overwrite:
        raise InputError(
            f"dataset {dataset_id!r} is there already, in {str(folder)!r}: choose another id, or overwrite"
        )
    return folder


def new_dataset_id(env_id: str, kind: str) -> str:
    """The first of ENV/KIND-v0, -v1, … that is free."""
    stem = f"{re.sub(r'[^-/A-Za-z0-9_]', '-', env_id)}/{kind}"
    numbers = (int(path.name.rpartition("-v")[2]) for path in (minari_root() / stem).parent.glob(f"{kind}-v*[0-9]"))
    return f"{stem}-v{max(numbers, default=-1) + 1}"


class DatasetWriter:
    """Writes episodes as they come; leaving the `with` block puts the dataset in its place, or nothing if an exception
    left it.

    Args:
        dataset_id: as in `check_dataset_id`.
        observation_space, action_space: of the environment.
        environment: as `spec_to_json` describes it; None if it is not known.
        gymnasium_spec: what gymnasium knows it by, for Minari's own programs; None if it does not.
        metadata: further entries of Minari's metadata, such as `algorithm_name`.
        overwrite: replace a dataset of that id.
    """

    def __init__(
        self,
        dataset_id: str,
        *,
        observation_space: Space,
        action_space: Space,
        environment: Mapping[str, Any] | None,
        gymnasium_spec: GymnasiumSpec | None,
        metadata: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        from minari import __version__
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_storage import MinariStorage

        self.path = check_dataset_id(dataset_id, overwrite=overwrite)
        self._observations, self._actions = codec(observation_space), codec(action_space)
        self._buffer: Any = EpisodeBuffer
        self._partial = self.path.with_name(f".{self.path.name}.writing")
        shutil.rmtree(self._partial, ignore_errors=True)  # of one that was killed
        (self._partial / "data").mkdir(parents=True)
        self._storage: Any = MinariStorage.new(
            self._partial / "data",
            observation_space,
            action_space,
            gymnasium_spec,
            data_format="hdf5",
            jpeg_encoding=False,
        )
        spaces = {"observation_space": space_to_json(observation_space), "action_space": space_to_json(action_space)}
        own = {OWN_ENTRY: {"environment": environment and dict(environment), **spaces}}
        self._storage.update_metadata({"dataset_id": dataset_id, "minari_version": __version__, **metadata, **own})

    def write(self, episodes: Iterable[RecordedEpisode]) -> None:
        """Append episodes."""
        self._storage.update_episodes(
            self._buffer(
                seed=episode.seed,
                observations=self._observations.unpack(episode.observations),
                actions=self._actions.unpack(episode.actions),
                rewards=episode.rewards,
                terminations=episode.terminations,
                truncations=episode.truncations,
                infos=None if episode.log_probs is None else {LOG_PROBS: episode.log_probs},
            )
            for episode in episodes
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                shutil.rmtree(self.path, ignore_errors=True)
                self._partial.rename(self.path)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
