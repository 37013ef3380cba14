"""The ways in which environments are put back to where they were: their own state, a pickle, a replayed episode."""

import copy
import io
import pickle
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from .closing import close_all
from .errors import ReplayMismatchError
from .group_progress import GroupProgress
from .group_state import GroupState, Recovery
from .mujoco_state import mujoco_state
from .pickle_table import PickleTable
from .reproducer import Moment
from .spaces import codec

ADVICE = "Let the environment draw all its random numbers from self.np_random, or give it get_state() and set_state()"

# Wrappers with no state but what `restore_own_state` sets; around any other, an own state would miss the wrapper's.
_TRANSPARENT = (TimeLimit, OrderEnforcing, PassiveEnvChecker)


class Keeper:
    """Saves the environments of a group, and puts them back."""

    def __init__(self, envs: list[gymnasium.Env], progress: GroupProgress) -> None:
        """Keep environments.

        Args:
            envs: the group's own list, whose elements a pickle replaces.
            progress: where they are.
        """
        self._envs, self._progress = envs, progress
        self._by_value, self._table = False, PickleTable()

    def save(self, recovery: Recovery) -> Any:
        """Return what `put_back` needs beside seeds and actions."""
        if recovery == "own_state":
            return [save_own_state(env) for env in self._envs]
        return self._snapshot() if recovery == "snapshot" else None

    def put_back(self, state: GroupState) -> bool:
        """Put the environments back, exactly or not at all; return whether there was a way.

        Raises:
            ReplayMismatchError: a replayed episode led elsewhere.
        """
        progress = self._progress
        if state.recovery == "own_state":
            for row, (env, own) in enumerate(zip(self._envs, state.payload, strict=True)):
                restore_own_state(env, own, progress.seeds[row], progress.length(row))
        elif state.recovery == "snapshot":
            before = list(self._envs)
            self._envs[:] = load_snapshot(state.payload, before)
            close_all(before, progress.spec.id)
        elif state.recovery == "replay":
            for row, env in enumerate(self._envs):
                moment = progress.moment(row)
                replay(env, progress.spec.id, moment, state.observations[row], float(state.returns[row]))
        return state.recovery != "restart"

    def _snapshot(self) -> bytes:
        # By reference where that can be: it takes a tenth of the time.
        if not self._by_value:
            try:
                return snapshot(self._envs, by_value=False, table=self._table)
            except Exception:  # a class of a script or a notebook, which is found nowhere by its name
                self._by_value = True
        return snapshot(self._envs, by_value=True)


# An environment's own state -----------------------------------------------------------------------------------------


def own_state_level(env: gymnasium.Env) -> Any:
    """Return what has the `get_state()` and `set_state(state)` that stand for the whole: the environment or a wrapper,
    or what stands for an environment of MuJoCo; or None."""
    level: Any = env
    while type(level) in _TRANSPARENT and not _has_own_state(level):
        level = level.env
    return level if _has_own_state(level) else mujoco_state(level)


def _has_own_state(level: Any) -> bool:
    return callable(getattr(type(level), "get_state", None)) and callable(getattr(type(level), "set_state", None))


def save_own_state(env: gymnasium.Env) -> tuple[Any, Any]:
    """Return a copy of the environment's own state, and its generator's, which a `get_state` tends to forget."""
    generator = getattr(env.unwrapped, "_np_random", None)
    state = copy.deepcopy(own_state_level(env).get_state())
    return state, None if generator is None else generator.bit_generator.state


def restore_own_state(env: gymnasium.Env, saved: tuple[Any, Any], seed: int, length: int) -> None:
    """Put an environment back to where `save_own_state` was called.

    Args:
        env: a copy of the environment, in whatever state.
        saved: what `save_own_state` returned.
        seed: the episode's.
        length: steps taken in the episode.
    """
    state, generator = saved
    env.reset(seed=seed)
    own_state_level(env).set_state(copy.deepcopy(state))
    if generator is not None:
        env.unwrapped.np_random.bit_generator.state = generator
    level: Any = env
    while isinstance(level, gymnasium.Wrapper):
        if isinstance(level, TimeLimit):
            vars(level)["_elapsed_steps"] = length  # it has no public way to go on in the middle of an episode
        level = level.env


# Pickles ------------------------------------------------------------------------------------------------------------


def snapshot(envs: list[gymnasium.Env], by_value: bool, table: PickleTable | None = None) -> bytes:
    """Return one pickle of a group's environments with their wrappers.

    Args:
        envs: the environments.
        by_value: whether code must go into the pickle. The environments' own classes never do: the group that loads
            it has them, and to pickle a class takes ten times as long as its instance.
        table: how they are pickled by reference; that of an earlier pickle of theirs knows their spaces.
    """
    file = io.BytesIO()
    if by_value:
        _PicklerByValue(file, _classes(envs)).dump(envs)
    else:
        pickler = pickle.Pickler(file, 5)
        pickler.dispatch_table = (table or PickleTable()).reducers
        pickler.dump(envs)
    return file.getvalue()


def load_snapshot(data: bytes, envs: list[gymnasium.Env]) -> list[gymnasium.Env]:
    """Return the environments of a snapshot; `envs` are the loading group's own, of the same classes."""
    unpickler = _Unpickler(io.BytesIO(data))
    unpickler.classes = list(_classes(envs))
    return unpickler.load()


def _classes(envs: list[gymnasium.Env]) -> dict[type, int]:
    classes: dict[type, int] = {}
    for env in envs:
        level = env
        while True:
            classes.setdefault(type(level), len(classes))
            if not isinstance(level, gymnasium.Wrapper):
                break
            level = level.env
    return classes


class _PicklerByValue(cloudpickle.Pickler):
    def __init__(self, file: io.BytesIO, classes: dict[type, int]) -> None:
        super().__init__(file, protocol=5)
        self._classes = classes

    def persistent_id(self, obj: Any) -> int | None:
        return self._classes.get(obj) if isinstance(obj, type) else None


class _Unpickler(pickle.Unpickler):
    classes: list[type]

    def persistent_load(self, pid: Any) -> type:
        return self.classes[pid]


# Replay -------------------------------------------------------------------------------------------------------------


def replay(env: gymnasium.Env, environment_id: str, moment: Moment, observation: np.ndarray, total: float) -> None:
    """Repeat an episode, and see that it leads to where it led the first time.

    Args:
        env: a copy of the environment, in whatever state.
        environment_id: for the message.
        moment: where it was; with all actions since the reset.
        observation: the last one then, a row of the space's codec.
        total: sum of rewards then.

    Raises:
        ReplayMismatchError: it leads elsewhere; names both values.
    """
    observations, unpack = codec(env.observation_space), codec(env.action_space).unpack
    found, _ = env.reset(seed=moment.seed)
    actions = () if moment.actions is None else moment.actions
    summed, length = 0.0, len(actions)
    problem = None
    for count, action in enumerate(actions, 1):
        found, reward, terminated, truncated, _ = env.step(unpack(action))
        summed += float(reward)
        if terminated or truncated:
            problem = f"the episode ended at step {count} of {length}"
            break
    if problem is None and summed != total:
        problem = f"the rewards sum to {summed!r}, recorded is {total!r}"
    if problem is None and np.array(observations.pack(found), observations.dtype).tobytes() != observation.tobytes():
        problem = f"the observation is {found!s:.200}, recorded is {observation!s:.200}"
    if problem is not None:
        where = f"environment {environment_id!r}, index {moment.environment}"
        raise ReplayMismatchError(
            f"{where}, could not be put back: episode {moment.episode} (reset seed {moment.seed}) was replayed for "
            f"{length} steps, but {problem}. {ADVICE}"
        )
