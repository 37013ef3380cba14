"""Datasets of recorded episodes in Minari's format (https://minari.farama.org): where they lie, what they say of
themselves, their episodes.

A dataset is named by its Minari id, looked for below MINARI_DATASETS_PATH (default ~/.minari/datasets), or by its
folder. Nothing is downloaded, and nothing that a dataset names is run: its environment is looked up by its id.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space

from ... import data
from ...envs import (
    EnvSpec,
    Role,
    SpaceMismatchError,
    codec,
    describe,
    install_line,
    is_installed,
    resolve,
    space_from_json,
    spec_from_json,
)
from ...runtime import InputError

OWN_ENTRY = "shoal"
"""Of a dataset's metadata: spaces and environment as our run folders describe them, which hold more than Minari's."""

LOG_PROBS = "action_log_prob"
"""Entry of an episode's `infos`: log-probability of each action where it was chosen, [T]."""


@dataclass(frozen=True)
class RecordedSteps:
    """Some whole episodes of a dataset, one after the other: n steps of m episodes."""

    observations: np.ndarray
    """[n + m, …]: rows of the space's codec, that after an episode's last step included."""
    rows: np.ndarray
    """[n] int64: in which of them each step's observation lies; the next one lies behind it."""
    actions: np.ndarray
    """[n, …]: rows of the space's codec, as `env.step` took them."""
    rewards: np.ndarray
    """[n] float32."""
    terminations: np.ndarray
    """[n] bool: the task ended, no value follows."""
    ends: np.ndarray
    """[n] bool: the episode has no further step."""

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class RecordedEpisode:
    """One episode of a dataset, of T steps. What follows its last step is another episode's, or nobody's."""

    observations: np.ndarray
    """[T + 1, …]: rows of the space's codec, that after the last step included."""
    actions: np.ndarray
    """[T, …]: rows of the space's codec, as `env.step` took them."""
    rewards: np.ndarray
    """[T] float32."""
    terminations: np.ndarray
    """[T] bool: the task ended, no value follows."""
    truncations: np.ndarray
    """[T] bool: the episode was cut off; its value goes on."""
    seed: int | None = None
    """What the reset that began it got."""
    log_probs: np.ndarray | None = None
    """[T] float32: log-probability of each action where it was chosen; None where that is unknown."""

    def __len__(self) -> int:
        return len(self.rewards)


def require_minari() -> None:
    """InputError with the command that installs what datasets need, if it is not there."""
    for module in ("minari", "h5py", "pyarrow"):
        if not is_installed(module):
            raise InputError(f"datasets need the package {module!r}, which is not installed: {install_line('minari')}")


class Dataset:
    """One dataset, or several with the same spaces as one.

    Args:
        name: a Minari id such as "cartpole/expert-v0", a folder, or several of them separated by commas.

    Raises InputError if one is missing, empty or damaged (what is there is named); SpaceMismatchError if several differ
    in their spaces.
    """

    def __init__(self, name: str | Path) -> None:
        require_minari()
        if not isinstance(name, str | Path):
            raise InputError(
                f"dataset is {name!r:.80}, but must be a Minari id or a folder: rl.write_dataset('mine/logged-v0', "
                "arrays, env=…) makes a dataset of arrays"
            )
        words = [str(name)] if Path(name).is_dir() else [word.strip() for word in str(name).split(",")]
        self._parts = [_Part(word) for word in words]
        self.name = ",".join(part.name for part in self._parts)
        """As it is found again from any folder."""
        self.observation_space, self.action_space = self._parts[0].observation_space, self._parts[0].action_space
        for part in self._parts[1:]:
            self.check_fits(f"dataset {part.name!r}", part.observation_space, part.action_space)
        self._firsts = np.cumsum([0, *(part.episodes for part in self._parts)])
        self.episodes = int(self._firsts[-1])
        """Number of episodes."""
        self.steps = sum(part.steps for part in self._parts)
        """Number of transitions."""

    def check_fits(self, other: str, observation_space: Space, action_space: Space) -> None:
        """Raise SpaceMismatchError, naming both, if the spaces of what is called `other` differ from the dataset's in
        more than the bounds of observations."""
        roles: tuple[tuple[Role, Space, Space], ...] = (
            ("observation", self.observation_space, observation_space),
            ("action", self.action_space, action_space),
        )
        for role, own, seen in roles:
            if codec(own).essence(role) != codec(seen).essence(role):
                raise SpaceMismatchError(
                    f"dataset {self._parts[0].name!r} has the {role} space {describe(own)}, but {other} has "
                    f"{describe(seen)}: what was recorded in the one does not fit the other"
                )

    def environment(self) -> EnvSpec:
        """The environment that it was recorded in, which need not be there: a spec is not made."""
        return self._parts[0].environment()

    @cached_property
    def lengths(self) -> np.ndarray:
        """[episodes] int64: steps of each."""
        return np.concatenate([part.lengths() for part in self._parts])

    def read(self, indices: Iterable[int]) -> Iterator[RecordedEpisode]:
        """Read episodes from the disk, in the order of `indices`."""

        def part_of(index: int) -> int:
            return int(np.searchsorted(self._firsts, index, side="right")) - 1

        for part, group in itertools.groupby(map(int, indices), part_of):
            yield from self._parts[part].read(index - int(self._firsts[part]) for index in group)

    def transitions(self, steps_per_piece: int | None = None) -> data.Dataset:
        """All transitions as rows, for `shoal.data` to read in whatever order; arguments as of `data.read_minari`."""
        return data.read_minari([part.path for part in self._parts], steps_per_piece=steps_per_piece)

    def steps_of(self, rows: Mapping[str, np.ndarray]) -> RecordedSteps:
        """Rows of `transitions` that are whole episodes. Raises InputError, which names the first one that is no such
        episode as the spaces say."""
        begins = rows["step"] == 0
        ends = np.append(begins[1:], True)
        at = np.arange(len(begins)) + np.cumsum(begins) - 1
        try:
            seen, after = (self._packed(f"{which}observations", rows) for which in ("", "next_"))
            actions = self._packed("actions", rows)
        except ValueError as error:
            if begins.sum() == 1:
                raise InputError(f"dataset {self.name!r}, episode {rows['episode'][0]}: {error}") from error
            bounds = [*np.flatnonzero(begins), len(begins)]
            for start, stop in itertools.pairwise(bounds):
                self.steps_of({name: column[start:stop] for name, column in rows.items()})
            raise
        rewards = np.asarray(rows["rewards"], np.float32)
        if not np.isfinite(rewards).all():
            first = int(np.flatnonzero(~np.isfinite(rewards))[0])
            episode, step = (int(rows[name][first]) for name in ("episode", "step"))
            where = f"dataset {self.name!r}, episode {episode}"
            raise InputError(f"{where}: the reward of step {step} is {rewards[first]}; wanted a finite number")
        observations = np.empty((len(at) + int(begins.sum()), *seen.shape[1:]), seen.dtype)
        observations[at] = seen
        observations[at[ends] + 1] = after[ends]
        return RecordedSteps(observations, at, actions, rewards, np.asarray(rows["terminations"], np.bool_), ends)

    def _packed(self, name: str, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        space = self.action_space if name == "actions" else self.observation_space
        return codec(space).as_batch(_nested(space, name, rows))[0]

    def summary(self) -> dict[str, Any]:
        """What tells it from others: name, numbers, and a SHA-256 of its spaces and its first and last episode."""
        digest = hashlib.sha256()
        digest.update(f"{describe(self.observation_space)} {describe(self.action_space)}".encode())
        for episode in self.read((0, self.episodes - 1)):
            for name in ("observations", "actions", "rewards", "terminations", "truncations"):
                digest.update(np.ascontiguousarray(getattr(episode, name)).tobytes())
        return {"name": self.name, "episodes": self.episodes, "steps": self.steps, "sha256": digest.hexdigest()}


class _Part:
    """One dataset on the disk."""

    def __init__(self, name: str) -> None:
        self.name, self.path = _find(name)
        try:
            self._metadata: dict[str, Any] = json.loads((self.path / "metadata.json").read_text(encoding="utf-8"))
            self.episodes, self.steps = (int(self._metadata[f"total_{what}"]) for what in ("episodes", "steps"))
            own = self._metadata.get(OWN_ENTRY) or {}
            self.observation_space, self.action_space = (self._space(f"{role}_space", own) for role in _ROLES)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"dataset {self.name!r} is damaged: metadata.json: {error!r}") from error
        if not self.steps:
            raise InputError(f"dataset {self.name!r} is empty: it has {self.episodes} episodes, of 0 steps")

    def _space(self, name: str, own: Mapping[str, Any]) -> Space:
        from minari.serialization import deserialize_space

        if name in own:
            return space_from_json(own[name])
        if name not in self._metadata:  # Minari would make the environment that it names, with what that runs
            raise InputError(f"dataset {self.name!r} does not say its {name}: write it anew with Minari 0.5 or newer")
        return deserialize_space(self._metadata[name])

    def environment(self) -> EnvSpec:
        described = (self._metadata.get(OWN_ENTRY) or {}).get("environment")
        if described is not None:
            try:
                return spec_from_json(described, folder=self.path)
            except InputError:  # it is only needed where it is evaluated, which will say so
                return EnvSpec(described["id"], described["id"])
        if "env_spec" not in self._metadata:
            return EnvSpec(self.name, self.name)
        spec = json.loads(self._metadata["env_spec"])
        limit = spec.get("max_episode_steps")
        try:
            found = resolve(spec["id"], spec.get("kwargs") or {})
        except InputError:
            found = EnvSpec(spec["id"], spec["id"], spec.get("kwargs") or {})
        return replace(found, max_episode_steps=found.max_episode_steps if limit is None else limit)

    @cached_property
    def _storage(self) -> Any:
        from minari.dataset.minari_storage import MinariStorage

        return MinariStorage.read(self.path)

    def lengths(self) -> np.ndarray:
        found = self._storage.get_episode_metadata(range(self.episodes))
        return np.array([int(entry["total_steps"]) for entry in found], np.int64)

    def read(self, indices: Iterable[int]) -> Iterator[RecordedEpisode]:
        observation, action = codec(self.observation_space), codec(self.action_space)
        for raw in self._storage.get_episodes(list(indices)):
            where, infos = f"dataset {self.name!r}, episode {raw['id']}", raw["infos"] or {}
            try:
                episode = RecordedEpisode(
                    observation.as_batch(raw["observations"])[0],
                    action.as_batch(raw["actions"])[0],
                    np.asarray(raw["rewards"], np.float32),
                    np.asarray(raw["terminations"], np.bool_),
                    np.asarray(raw["truncations"], np.bool_),
                    log_probs=None if LOG_PROBS not in infos else np.asarray(infos[LOG_PROBS], np.float32),
                )
            except ValueError as error:
                raise InputError(f"{where}: {error}") from error
            _check(episode, where)
            yield episode


def _nested(space: Space, name: str, columns: Mapping[str, np.ndarray]) -> Any:
    """Values of a space from columns that `data.read_minari` names by their leaves, such as "observations/position"."""
    parts = getattr(space, "spaces", None)
    if parts is None:
        return columns[name]
    if isinstance(parts, Mapping):
        return {key: _nested(part, f"{name}/{key}", columns) for key, part in parts.items()}
    return tuple(_nested(part, f"{name}/{index}", columns) for index, part in enumerate(parts))


_ROLES = ("observation", "action")


def _check(episode: RecordedEpisode, where: str) -> None:
    """Refuse an episode whose columns do not belong together."""
    steps = len(episode)
    found = {name: len(getattr(episode, name)) for name in ("actions", "terminations", "truncations")}
    wanted = dict.fromkeys(found, steps) | {"observations": steps + 1}
    for name, count in (found | {"observations": len(episode.observations)}).items():
        if count != wanted[name]:
            raise InputError(f"{where} has {count} {name} with {steps} rewards; wanted {wanted[name]}")
    if not np.isfinite(episode.rewards).all():
        step = int(np.flatnonzero(~np.isfinite(episode.rewards))[0])
        raise InputError(f"{where}: the reward of step {step} is {episode.rewards[step]}; wanted a finite number")


def _find(name: str) -> tuple[str, Path]:
    """A dataset's name, that of a folder absolute, and the folder of its files."""
    if not name:
        raise InputError("no dataset is given: name one with dataset=… (--dataset), such as 'cartpole/expert-v0'")
    path = data.find_minari(name)
    return str(Path(name).resolve()) if Path(name).is_dir() and path.is_relative_to(name) else name, path
