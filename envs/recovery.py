"""How an environment is put back to where it was: by its own state, by a pickle, or by replaying its episode.

Which of them is exact is found out by trying, once per group, on throw-away copies: the original and the copy that was
put back must have the same future. That rejects pickles that start anew (gymnasium's EzPickle), generators outside the
environment, and what an environment carries from one episode into the next.
"""

import contextlib
import copy
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from .errors import ReplayMismatchError
from .group_state import Recovery
from .pickling import unpicklable_member
from .reproducer import Moment
from .seeding import derive_seed
from .spec import EnvSpec
from .trees import can_be_arrays

ADVICE = "Let the environment draw all its random numbers from self.np_random, or give it get_state() and set_state()"

# Steps played before and after the moment that is put back.
_PROBE_STEPS = 8

# A larger pickle, in bytes, would cost more with every rollout than a replay costs with every lost worker: Taxi's
# (with its table of all transitions) takes 500 µs per environment.
_LARGEST_PICKLE = 8 * 1024

# Wrappers with no state but what `restore_own_state` sets; around any other, an own state would miss the wrapper's.
_TRANSPARENT = (TimeLimit, OrderEnforcing, PassiveEnvChecker)

Trace = list[tuple[bytes, ...]]


@dataclass(frozen=True)
class RecoveryChoice:
    """What works for an environment.

    Attributes:
        recovery: the way to take.
        replayable: whether seed and actions lead back to the same place.
        by_value: whether the pickle has to hold code, as for classes defined in a script or notebook.
        needs_actions: whether a checkpoint of it must hold the actions of the episodes in progress.
        problems: why each way that was tried before is not exact.
    """

    recovery: Recovery
    replayable: bool
    by_value: bool = False
    needs_actions: bool = True
    problems: tuple[str, ...] = ()


def choose_recovery(spec: EnvSpec, run_seed: int, environment: int) -> RecoveryChoice:
    """Try on throw-away copies which ways lead back exactly; the first that does is taken.

    Args:
        spec: what the copies are made from.
        run_seed: seed of the run, from which the trial's actions are drawn.
        environment: logical index of an environment; as `run_seed`.
    """
    with contextlib.ExitStack() as stack:
        try:
            original, fresh = (stack.enter_context(contextlib.closing(spec.make())) for _ in range(2))
        except Exception as error:  # an environment may be the only one of its kind, as a robot or a licence is
            return RecoveryChoice("restart", False, problems=(f"no further copy of it can be made ({error!r})",))
        trial = _Trial(original, derive_seed(run_seed, "recovery trial", environment))
        return trial.choose(fresh)


class _Trial:
    """One environment in the middle of an episode, and the ways back to there."""

    def __init__(self, original: gymnasium.Env, seed: int) -> None:
        actions = sample_actions(original.action_space, 3 * _PROBE_STEPS, seed)
        self._seeds = [(seed + offset) % 2**31 for offset in range(5 * _PROBE_STEPS)]
        self._seed = self._seeds[-1]
        self._before, self._future = actions[_PROBE_STEPS : 2 * _PROBE_STEPS], actions[2 * _PROBE_STEPS :]
        self.original = original
        # An earlier episode first: what the environment carries out of it, a replay does not know.
        original.reset(seed=self._seeds[-2])
        play(original, actions[:_PROBE_STEPS], self._seeds)
        self._past = self._begin(original)

    def _begin(self, env: gymnasium.Env) -> Trace:
        """Play the episode up to the moment that is put back, which must not be the end of it."""
        while True:
            observation, _ = env.reset(seed=self._seed)
            trace = [_bits(observation)]
            for count, action in enumerate(self._before):
                observation, reward, terminated, truncated, _ = env.step(copy.copy(action))
                trace.append(_bits(observation, reward))
                if terminated or truncated:
                    self._before = self._before[:count]
                    break
            else:
                return trace

    def choose(self, fresh: gymnasium.Env) -> RecoveryChoice:
        own, problems = self._own_state()
        pickled, by_value = self._pickle()
        future = play(self.original, self._future, self._seeds)

        replayed = self._begin(fresh) == self._past and play(fresh, self._future, self._seeds) == future
        if own is not None:
            problem = self._problem_of_own_state(own, fresh, future)
            if problem is None:
                return RecoveryChoice("own_state", replayed, needs_actions=not can_be_arrays(own))
            problems.append(problem)
        if pickled is not None:
            if replayed and len(pickled) > _LARGEST_PICKLE:
                problems.append(f"its pickle takes {len(pickled)} bytes")
            elif self._pickle_is_exact(pickled, future):
                return RecoveryChoice("snapshot", replayed, by_value, problems=tuple(problems))
            else:
                problems.append("its pickle goes on differently")
        else:
            where = unpicklable_member(self.original, type(self.original.unwrapped).__name__)
            problems.append(f"{where or 'it'} cannot be pickled")
        if replayed:
            return RecoveryChoice("replay", True, problems=tuple(problems))
        problems.append("the same seed and actions lead elsewhere")
        return RecoveryChoice("restart", False, problems=tuple(problems))

    def _own_state(self) -> tuple[Any, list[str]]:
        if own_state_level(self.original) is None:
            return None, []
        try:
            return save_own_state(self.original), []
        except Exception as error:  # another library's get_state may want arguments; then it isn't for us
            return None, [f"get_state() raised {error!r}"]

    def _problem_of_own_state(self, own: Any, fresh: gymnasium.Env, future: Trace) -> str | None:
        try:
            restore_own_state(fresh, own, self._seeds[-3], len(self._before))
            same = play(fresh, self._future, self._seeds) == future
        except Exception as error:  # as above
            return f"set_state(get_state()) raised {error!r}"
        return None if same else "after set_state(get_state()) it goes on differently"

    def _pickle(self) -> tuple[bytes | None, bool]:
        by_value = False
        # A user's __getstate__ may raise anything; whatever it is, there is no pickle of that kind.
        with contextlib.suppress(Exception):
            return snapshot([self.original], by_value), by_value
        by_value = True
        with contextlib.suppress(Exception):
            return snapshot([self.original], by_value), by_value
        return None, by_value

    def _pickle_is_exact(self, pickled: bytes, future: Trace) -> bool:
        try:
            (again,) = load_snapshot(pickled, [self.original])
            try:
                return play(again, self._future, self._seeds) == future
            finally:
                again.close()
        except Exception:  # a half-pickled environment may fail anywhere; then its pickle is not exact
            return False


def play(env: gymnasium.Env, actions: Sequence[Any], seeds: Sequence[int]) -> Trace:
    """Step an environment, resetting it with the next seed where an episode ends; return all that came out, as bits."""
    trace, ends = [], 0
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(copy.copy(action))
        trace.append((*_bits(observation, reward), bytes([bool(terminated), bool(truncated)])))
        if terminated or truncated:
            trace.append(_bits(env.reset(seed=seeds[ends])[0]))
            ends += 1
    return trace


def _bits(*values: Any) -> tuple[bytes, ...]:
    return tuple(np.asarray(value).tobytes() for value in values)


def sample_actions(space: gymnasium.Space, count: int, seed: int) -> list[Any]:
    """Return random actions; the environment's own space keeps its generator."""
    space = copy.deepcopy(space)
    space.seed(seed % 2**31)
    return [space.sample() for _ in range(count)]


# An environment's own state -----------------------------------------------------------------------------------------


def own_state_level(env: gymnasium.Env) -> Any:
    """Return the environment or wrapper whose `get_state()` and `set_state(state)` stand for the whole, or None."""
    level: Any = env
    while True:
        if callable(getattr(type(level), "get_state", None)) and callable(getattr(type(level), "set_state", None)):
            return level
        if type(level) not in _TRANSPARENT:
            return None
        level = level.env


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


def snapshot(envs: list[gymnasium.Env], by_value: bool) -> bytes:
    """Return one pickle of a group's environments with their wrappers.

    Args:
        envs: the environments.
        by_value: whether code must go into the pickle. The environments' own classes never do: the group that loads
            it has them, and to pickle a class takes ten times as long as its instance.
    """
    if not by_value:
        return pickle.dumps(envs, 5)
    file = io.BytesIO()
    _PicklerByValue(file, _classes(envs)).dump(envs)
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
        observation: the last one then.
        total: sum of rewards then.

    Raises:
        ReplayMismatchError: it leads elsewhere; names both values.
    """
    found, _ = env.reset(seed=moment.seed)
    actions = () if moment.actions is None else moment.actions
    summed, length = 0.0, len(actions)
    problem = None
    for count, action in enumerate(actions, 1):
        found, reward, terminated, truncated, _ = env.step(action)
        summed += float(reward)
        if terminated or truncated:
            problem = f"the episode ended at step {count} of {length}"
            break
    if problem is None and summed != total:
        problem = f"the rewards sum to {summed!r}, recorded is {total!r}"
    if problem is None and np.asarray(found, observation.dtype).tobytes() != observation.tobytes():
        problem = f"the observation is {found!s:.200}, recorded is {observation!s:.200}"
    if problem is not None:
        where = f"environment {environment_id!r}, index {moment.environment}"
        raise ReplayMismatchError(
            f"{where}, could not be put back: episode {moment.episode} (reset seed {moment.seed}) was replayed for "
            f"{length} steps, but {problem}. {ADVICE}"
        )
