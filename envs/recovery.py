"""How an environment is put back to where it was: by its own state, by a pickle, or by replaying its episode.

Which of them is exact is found out by trying, once per training, on throw-away copies: the original and the copy that
was put back must have the same future. That rejects pickles that start anew (gymnasium's EzPickle), generators outside
the environment, and what an environment carries from one episode into the next.

A training tries before it makes any environment of its own, so that copies cannot take from it what their `close` gives
back. And a pickle is not even tried where something is given back at the end (see `outside`): a second environment made
from it would give back what the first one still uses.
"""

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from .action_mask import allowed_action
from .closing import closing
from .copies import make_copy
from .errors import RecoveryWarning
from .generators import own_generators
from .group_state import Recovery
from .last_words import LastWords
from .outside import gives_back
from .pickling import unpicklable_member
from .seeding import derive_seed
from .spec import EnvSpec
from .trees import can_be_arrays
from .ways_back import ADVICE, load_snapshot, own_state_level, restore_own_state, save_own_state, snapshot

# Steps played before and after the moment that is put back.
_PROBE_STEPS = 8

# A larger pickle, in bytes, would cost more with every rollout than a replay costs with every lost worker: Taxi's
# (with its table of all transitions) takes 500 µs per environment.
_LARGEST_PICKLE = 8 * 1024

Trace = list[tuple[bytes, ...]]


@dataclass(frozen=True)
class RecoveryChoice:
    """What works for an environment.

    Attributes:
        recovery: the way to take.
        replayable: whether seed and actions lead back to the same place.
        needs_actions: whether a checkpoint of it must hold the actions of the episodes in progress.
        problems: why each way that was tried before is not exact.
    """

    recovery: Recovery
    replayable: bool
    needs_actions: bool = True
    problems: tuple[str, ...] = ()


def choose_recovery(spec: EnvSpec, run_seed: int, environment: int) -> RecoveryChoice:
    """Try on throw-away copies which ways lead back exactly; the first that does is taken.

    A training asks before it makes any environment of its own: what a copy gives back at its end, they may share.

    Args:
        spec: what the copies are made from.
        run_seed: seed of the run, from which the trial's actions are drawn.
        environment: logical index of an environment; as `run_seed`.

    Warns:
        RecoveryWarning: there is no exact way back.
    """
    seed = derive_seed(run_seed, "recovery trial", environment)
    try:
        with contextlib.closing(LastWords(spec.id)) as words, own_generators(seed), contextlib.ExitStack() as stack:
            words.note("a trial of how it can be put back where it was")
            choice = _try_out(spec, run_seed, environment, seed, stack)
    except Exception as error:
        error.add_note(f"while finding out how environment {spec.id!r} can be put back where it was")
        raise
    if choice.recovery == "restart":
        warnings.warn(
            f"environment {spec.id!r} cannot be put back where it was: {'; '.join(choice.problems)}. If a worker is "
            f"lost, or the run is resumed, its episodes in progress are dropped and results may differ. {ADVICE}",
            RecoveryWarning,
            stacklevel=3,
        )
    return choice


def _try_out(spec: EnvSpec, run_seed: int, environment: int, seed: int, stack: contextlib.ExitStack) -> RecoveryChoice:
    copies = []
    for _ in range(2):
        try:
            env = make_copy(spec, run_seed, environment)
        except Exception as error:  # an environment may be the only one of its kind, as a robot or a licence is
            return RecoveryChoice("restart", False, problems=(f"no further copy of it can be made ({error!r})",))
        copies.append(stack.enter_context(closing(env, spec.id)))
    original, fresh = copies
    return _Trial(spec, original, seed).choose(fresh)


class _Trial:
    """One environment in the middle of an episode, and the ways back to there."""

    def __init__(self, spec: EnvSpec, original: gymnasium.Env, seed: int) -> None:
        actions = sample_actions(original.action_space, 3 * _PROBE_STEPS, seed)
        self._seeds = [(seed + offset) % 2**31 for offset in range(5 * _PROBE_STEPS)]
        self._seed = self._seeds[-1]
        self._before, self._future = actions[_PROBE_STEPS : 2 * _PROBE_STEPS], actions[2 * _PROBE_STEPS :]
        self.spec, self.original = spec, original
        # An earlier episode first: what the environment carries out of it, a replay does not know.
        observation, _ = original.reset(seed=self._seeds[-2])
        play(original, actions[:_PROBE_STEPS], self._seeds, observation)
        self._here: Any = None
        self._past = self._begin(original)

    def _begin(self, env: gymnasium.Env) -> Trace:
        """Play the episode up to the moment that is put back, which must not be the end of it."""
        while True:
            observation, _ = env.reset(seed=self._seed)
            trace = [_bits(observation)]
            for count, drawn in enumerate(self._before):
                action = allowed_action(env.action_space, drawn, observation)
                observation, reward, terminated, truncated, _ = env.step(copy.copy(action))
                trace.append(_bits(observation, reward))
                if terminated or truncated:
                    self._before = self._before[:count]
                    break
            else:
                self._here = copy.deepcopy(observation)
                return trace

    def choose(self, fresh: gymnasium.Env) -> RecoveryChoice:
        own, problems = self._own_state()
        pickled, no_pickle = self._pickle()
        future = play(self.original, self._future, self._seeds, self._here)

        replayed = self._begin(fresh) == self._past and play(fresh, self._future, self._seeds, self._here) == future
        if own is not None:
            problem = self._problem_of_own_state(own, fresh, future)
            if problem is None:
                return RecoveryChoice("own_state", replayed, needs_actions=not can_be_arrays(own))
            problems.append(problem)
        if no_pickle is not None:
            problems.append(no_pickle)
        elif replayed and len(pickled) > _LARGEST_PICKLE:
            problems.append(f"its pickle takes {len(pickled)} bytes")
        elif self._pickle_is_exact(pickled, future):
            return RecoveryChoice("snapshot", replayed, problems=tuple(problems))
        else:
            problems.append("its pickle goes on differently")
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
            same = play(fresh, self._future, self._seeds, self._here) == future
        except Exception as error:  # as above
            return f"set_state(get_state()) raised {error!r}"
        return None if same else "after set_state(get_state()) it goes on differently"

    def _pickle(self) -> tuple[bytes, str | None]:
        """Return a pickle of the original, or why it is of no use."""
        for by_value in (False, True):
            # A user's __getstate__ may raise anything; whatever it is, there is no pickle of that kind.
            with contextlib.suppress(Exception):
                pickled, outside = snapshot([self.original], by_value), gives_back(self.original)
                if outside is None:
                    return pickled, None
                return b"", f"{outside} gives something back at its end, which a copy from its pickle would do again"
        where = unpicklable_member(self.original, type(self.original.unwrapped).__name__)
        return b"", f"{where or 'it'} cannot be pickled"

    def _pickle_is_exact(self, pickled: bytes, future: Trace) -> bool:
        try:
            (again,) = load_snapshot(pickled, [self.original])
            with closing(again, self.spec.id):
                return play(again, self._future, self._seeds, self._here) == future
        except Exception:  # a half-pickled environment may fail anywhere; then its pickle is not exact
            return False


def play(env: gymnasium.Env, actions: Sequence[Any], seeds: Sequence[int], observation: Any) -> Trace:
    """Step an environment, which gave `observation` last, resetting it with the next seed where an episode ends; return
    all that came out, as bits."""
    trace, ends = [], 0
    for drawn in actions:
        action = allowed_action(env.action_space, drawn, observation)
        observation, reward, terminated, truncated, _ = env.step(copy.copy(action))
        trace.append((*_bits(observation, reward), bytes([bool(terminated), bool(truncated)])))
        if terminated or truncated:
            observation, _ = env.reset(seed=seeds[ends])
            trace.append(_bits(observation))
            ends += 1
    return trace


def _bits(*values: Any) -> tuple[bytes, ...]:
    return tuple(np.asarray(leaf).tobytes() for value in values for leaf in _leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    """What is not a dict or tuple itself, within an observation."""
    if isinstance(value, dict | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def sample_actions(space: gymnasium.Space, count: int, seed: int) -> list[Any]:
    """Return random actions; the environment's own space keeps its generator."""
    space = copy.deepcopy(space)
    space.seed(seed % 2**31)
    return [space.sample() for _ in range(count)]
