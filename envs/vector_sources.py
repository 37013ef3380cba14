"""Environments that step many at once: gymnasium's own vector versions, EnvPool, and ale-py's, behind one interface.

What differs between them is what follows the end of an episode. Where single rows can be reset (`disabled` autoreset,
ale-py), they are, at once, so that no step is lost. `same-step` autoreset does it by itself and hands over the last
observation. `next-step` autoreset needs a step for it: in rows that have ended, the next step is no transition
(`resets_on_next_step`), and what it returns is only the observation of the reset. EnvPool has the latter, and could
reset single rows as well; but to ask its threads twice costs more than the steps that are lost.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from ..runtime import InputError
from .atari import PLAIN, PREPROCESSED, Atari
from .envpool_env import EnvPoolEnv, find_task, its_own_spaces
from .packages import missing_packages_named
from .spec import EnvSpec, entry_name

KINDS = ("sync", "entry_point", "envpool", "ale")
"""Values of `vectorization`; sync steps copies one by one."""


Stepped = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]
"""What a step of all environments gave: observations [size, …] that it led to, the last ones where an episode ended;
rewards, terminations and truncations [size]; and observations [size, …] after a same-step autoreset, None if there was
none. Arrays that the next step may overwrite."""


class VectorSource(ABC):
    """Environments of one kind that are stepped together."""

    observation_space: gymnasium.Space
    """Of one environment, as is `action_space`."""
    action_space: gymnasium.Space
    resets_on_next_step = False
    """Whether a row whose episode has ended is reset by the next step, which is then no transition."""
    seeded = False
    """Whether each episode has a seed of its own."""

    @abstractmethod
    def begin(self, seed: int, seeds: Sequence[int]) -> np.ndarray:
        """Begin anew everywhere, from `seed`, or from each row's own of `seeds` if `seeded`; observations [size, …]."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> Stepped:
        """Take one step in each."""

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Begin new episodes in some rows; their observations [rows, …]."""
        raise NotImplementedError

    def save(self) -> Any:
        """Everything that `load` needs, of arrays and plain values; raises TypeError if that cannot be."""
        raise TypeError(f"{type(self).__name__} does not give its state away")

    def load(self, saved: Any) -> None:
        """Go on from what `save` returned."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""


class EntryPoint(VectorSource):
    """What an environment's registration has as `vector_entry_point`."""

    def __init__(self, spec: EnvSpec, size: int) -> None:
        found = gymnasium.spec(spec.entry) if isinstance(spec.entry, str) else spec.entry
        if not isinstance(found, gymnasium.envs.registration.EnvSpec) or found.vector_entry_point is None:
            raise InputError(
                f"environment {spec.id!r} has no vector version: its registration has no vector_entry_point. "
                "Choose vectorization 'sync', or 'envpool' or 'ale' if they have it"
            )
        given = dict(spec.kwargs)
        if spec.max_episode_steps != found.max_episode_steps:
            given["max_episode_steps"] = spec.max_episode_steps
        with missing_packages_named(spec.id):
            self._env: Any = gymnasium.make_vec(
                found, num_envs=size, vectorization_mode="vector_entry_point", vector_kwargs={}, **given
            )
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        mode = AutoresetMode((self._env.metadata or {}).get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.resets_on_next_step, self._resets_at_once = (
            mode == kind for kind in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
        )

    def begin(self, seed: int, seeds: Sequence[int]) -> np.ndarray:
        """As of `VectorSource`."""
        observations, _ = self._env.reset(seed=seed)
        return np.asarray(observations)

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """As of `VectorSource`."""
        mask = np.zeros(self._env.num_envs, np.bool_)
        mask[rows] = True
        observations, _ = self._env.reset(options={"reset_mask": mask})
        return np.asarray(observations)[rows]

    def step(self, actions: np.ndarray) -> Stepped:
        """As of `VectorSource`."""
        observations, rewards, terminations, truncations, info = self._env.step(actions)
        if not self._resets_at_once or not (terminations | truncations).any():
            return observations, rewards, terminations, truncations, None
        finals = np.array(observations)
        for row in np.flatnonzero(terminations | truncations):
            finals[row] = info["final_obs"][row]
        return finals, rewards, terminations, truncations, observations

    def save(self) -> Any:
        """Its attributes that are numbers and arrays, and the state of its generator."""
        inner = self._env.unwrapped
        values = {name: value for name, value in vars(inner).items() if _is_state(value)}
        return _copied(values), inner.np_random.bit_generator.state

    def load(self, saved: Any) -> None:
        """As of `VectorSource`."""
        values, generator = saved
        inner = self._env.unwrapped
        self._env.reset(seed=0)
        for name, value in _copied(values).items():
            setattr(inner, name, value)
        inner.np_random.bit_generator.state = generator

    def close(self) -> None:
        """As of `VectorSource`."""
        self._env.close()


class EnvPool(VectorSource):
    """EnvPool's version of an id (Weng et al., 2022, arXiv 2206.10558)."""

    resets_on_next_step = True
    _NAMES = {  # noqa: RUF012
        "frame_stack": "stack_num",
        "clip_reward": "reward_clip",
        "terminal_on_life_loss": "episodic_life",
        "fire_reset": "use_fire_reset",
    }

    def __init__(self, spec: EnvSpec, size: int) -> None:
        own = dict(spec.kwargs)
        named = own.pop("task") if spec.entry is EnvPoolEnv else spec.id
        self._id = str(named).removeprefix(PREPROCESSED).removeprefix(PLAIN)
        with missing_packages_named(spec.id):
            self._module: Any = find_task(self._id)
        if spec.entry not in (Atari, EnvPoolEnv) and not isinstance(
            spec.entry, str | gymnasium.envs.registration.EnvSpec
        ):
            raise InputError(
                f"environment {spec.id!r} is registered here as {entry_name(spec.entry)}, and EnvPool would step its "
                "own of that name: choose vectorization 'sync', or register yours under another id"
            )
        given = _atari_settings(spec, self._NAMES, "img_height", "img_width") if spec.entry is Atari else own
        self._kwargs = {**given, "num_envs": size, "num_threads": 1, "env_type": "gymnasium"}
        if spec.max_episode_steps is not None:
            self._kwargs["max_episode_steps"] = spec.max_episode_steps
        self._pool: Any = self._make(0)
        with its_own_spaces():
            self.observation_space = self._pool.observation_space
            self.action_space = self._pool.action_space
        self._in_order = np.arange(size, dtype=np.int32).tobytes()

    def _make(self, seed: int) -> Any:
        try:
            with its_own_spaces():
                return self._module.make(self._id, seed=seed % 2**31, **self._kwargs)
        except (TypeError, ValueError, AssertionError) as error:
            raise InputError(
                f"EnvPool cannot make {self._id!r}: {error}. Arguments are given to EnvPool's version, which need not "
                "take gymnasium's: choose vectorization 'sync' for these"
            ) from error

    def begin(self, seed: int, seeds: Sequence[int]) -> np.ndarray:
        """As of `VectorSource`."""
        self._pool.close()
        self._pool = self._make(seed)  # which is the only time that it takes a seed
        with its_own_spaces():
            observations, info = self._pool.reset()
        return observations[np.argsort(info["env_id"])]

    def step(self, actions: np.ndarray) -> Stepped:
        """As of `VectorSource`."""
        *results, info = self._pool.step(actions)  # which takes any dtype
        if info["env_id"].tobytes() != self._in_order:
            order = np.argsort(info["env_id"])
            results = [result[order] for result in results]
        observations, rewards, terminations, truncations = results
        return observations, rewards, terminations, truncations, None

    def close(self) -> None:
        """As of `VectorSource`."""
        self._pool.close()


class Ale(VectorSource):
    """ale-py's vector version of a preprocessed game."""

    seeded = True
    _NAMES = {  # noqa: RUF012
        "frame_stack": "stack_num",
        "frame_skip": "frameskip",
        "clip_reward": "reward_clipping",
        "terminal_on_life_loss": "episodic_life",
        "fire_reset": "use_fire_reset",
    }

    def __init__(self, spec: EnvSpec, size: int) -> None:
        if spec.entry is not Atari:
            raise InputError(
                f"vectorization is 'ale', but {spec.id!r} is not a preprocessed game: write '{PREPROCESSED}Pong-v5'"
            )
        with missing_packages_named(spec.id):
            vector = importlib.import_module("ale_py.vector_env")
        game = gymnasium.spec(spec.kwargs["game"]).kwargs["game"]
        settings = _atari_settings(spec, self._NAMES, "img_height", "img_width")
        self._env: Any = vector.AtariVectorEnv(game, size, num_threads=1, **settings)
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space

    def begin(self, seed: int, seeds: Sequence[int]) -> np.ndarray:
        """As of `VectorSource`."""
        observations, _ = self._env.reset(seed=np.array([own % 2**31 for own in seeds]))
        return np.array(observations)

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """As of `VectorSource`."""
        mask = np.zeros(self._env.num_envs, np.bool_)
        mask[rows] = True
        given = np.array([own % 2**31 for own in seeds])
        observations, _ = self._env.reset(seed=given, options={"reset_mask": mask})
        return np.array(observations[rows])

    def step(self, actions: np.ndarray) -> Stepped:
        """As of `VectorSource`."""
        observations, rewards, terminations, truncations, _ = self._env.step(actions)
        return observations, rewards, terminations, truncations, None

    def close(self) -> None:
        """As of `VectorSource`."""
        self._env.close()


_SOURCES: dict[str, type[Any]] = {"entry_point": EntryPoint, "envpool": EnvPool, "ale": Ale}


def make_source(kind: str, spec: EnvSpec, size: int) -> VectorSource:
    """Return `size` environments as one; `kind` is one of `KINDS` but sync. InputError if there is no such version."""
    source: VectorSource = _SOURCES[kind](spec, size)
    return source


def _atari_settings(spec: EnvSpec, names: Mapping[str, str], height: str, width: str) -> dict[str, Any]:
    """What the preprocessing of a spec is called elsewhere, its defaults included."""
    defaults = Atari.__init__.__kwdefaults__ or {}
    settings = {**defaults, **spec.kwargs}
    for name in ("game", "render_mode"):
        settings.pop(name, None)
    size = settings.pop("screen_size")
    return {names.get(name, name): value for name, value in settings.items()} | {height: size, width: size}


def _is_state(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic)


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in values.items()}
