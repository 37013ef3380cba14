"""An environment of which every result is checked against gymnasium's contract, for `check`."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import gymnasium
import numpy as np

from .action_mask import allowed_action, allows_nothing
from .contract import exit_problem, flags_note, reset_problem, step_problem
from .errors import EnvContractError, EnvTimeoutError
from .group_progress import GroupProgress
from .interrupts import CallInterrupted
from .last_words import LastWords
from .observation_guard import ADVICE
from .reproducer import Moment, add_note
from .spaces import MASK, codec
from .spec import EnvSpec
from .watch import IDLE, Watch

#: Observation, reward, terminated, truncated of each step.
Trace = list[tuple[Any, float, bool, bool]]


class Calls:
    """Calls into environments, in bounded time.

    Attributes:
        spec: what they are made from.
        taken: actions since the last reset, as rows of the space's codec.
        seed: what it got; None before.
    """

    def __init__(self, spec: EnvSpec, limit: float | None = None) -> None:
        self.spec, self._limit = spec, limit
        self.taken: list[np.ndarray] = []
        self.seed: int | None = None
        self._progress = GroupProgress(spec, 1, 0, 0)
        self._watch, self._last_words = Watch(self._progress, limit, None), LastWords(spec.id)

    def close(self) -> None:
        """End the watch over them."""
        self._watch.stop()
        self._last_words.close()

    @contextmanager
    def __call__(self, doing: str) -> Iterator[None]:
        """Make a call in the block; what it raises gets a note that says where, and a script that repeats it."""
        self._progress.steps += 1
        if doing != "step":
            self._progress.begins[0], self._progress.episodes[0] = self._progress.steps, 0
        self._last_words.note(doing)
        self._watch.begin(doing, 0)
        try:
            yield
        except SystemExit as end:
            ended = EnvContractError(f"environment {self.spec.id!r}: {exit_problem(end, doing)}")
            self._add_note(ended, doing)
            raise ended from None
        except CallInterrupted:
            where = f"environment {self.spec.id!r}: {doing}"
            error = EnvTimeoutError(f"{where} had not returned after {self._limit:g} s")
            self._add_note(error, doing)
            raise error from None
        except Exception as error:
            self._add_note(error, doing)
            raise
        finally:
            self._watch.row = IDLE

    def _add_note(self, error: Exception, doing: str) -> None:
        # A constructor's was added where it is called.
        if doing != "__init__" or isinstance(error, EnvTimeoutError):
            actions = np.stack(self.taken) if self.taken else None
            add_note(error, self.spec, Moment(0, 0, self.seed, actions), doing, len(self.taken))


class CheckedEnvironment:
    """One environment being checked.

    Attributes:
        env: the environment.
        notes: what was found and is no error, by what it is about.
        info: what the last reset told beside the observation.
    """

    def __init__(self, spec: EnvSpec, env: gymnasium.Env, calls: Calls, mode: str) -> None:
        self.spec, self.env, self._calls, self._mode = spec, env, calls, mode
        self.notes: dict[str, str] = {}
        self.info: dict[str, Any] = {}

    def fail(self, problem: str) -> NoReturn:
        """Raise EnvContractError."""
        raise EnvContractError(f"environment {self.spec.id!r}: {problem}") from None

    def reset(self, seed: int) -> Any:
        """Reset, and return the observation."""
        calls = self._calls
        calls.taken, calls.seed = [], seed
        try:
            with calls("reset"):
                result = self.env.reset(seed=seed)
        except TypeError as error:
            if "'seed'" not in str(error):
                raise
            self.fail(
                "reset() takes no argument 'seed': declare it as reset(self, *, seed=None, options=None) and call "
                "super().reset(seed=seed) first"
            )
        self._refuse(partial(reset_problem, result, self.env.observation_space), f"reset(seed={seed})")
        self.info = result[1]
        return result[0]

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Take a step, and return all of its result."""
        actions = codec(self.env.action_space)
        self._calls.taken.append(np.array(actions.pack(action), actions.dtype))
        with self._calls("step"):
            result: Any = self.env.step(copy.copy(action))
        self._refuse(partial(step_problem, result, self.env.observation_space), self._when())
        if "flags" not in self.notes and (note := flags_note(*result[2:4])):
            self.notes["flags"] = note
        return result

    def _when(self) -> str:
        return f"step {len(self._calls.taken)} after reset(seed={self._calls.seed})"

    def play(self, actions: list[Any], seed: int) -> Trace:
        """Take steps, resetting where an episode ends; return what came out."""
        out: Trace = []
        kept, source = self.reset(seed), "reset()"
        for drawn in actions:
            if allows_nothing(self.env.action_space, kept):
                self.fail(f"{source} returned an {MASK} that allows no action ({self._when()}): end the episode there")
            action = allowed_action(self.env.action_space, drawn, kept)
            kept, reward, terminated, truncated, _ = self.keeping(kept, source, partial(self.step, action), "step()")
            source = "step()"
            out.append((copy.deepcopy(kept), float(reward), bool(terminated), bool(truncated)))
            if terminated or truncated:
                kept, source = self.keeping(kept, source, partial(self.reset, seed), "reset()"), "reset()"
        return out

    def keeping(self, kept: Any, source: str, call: Callable[[], Any], by: str) -> Any:
        """Make a call, and see that it leaves alone an observation that was returned earlier."""
        before = copy.deepcopy(kept)
        result = call()
        if difference(before, kept):
            self.fail(
                f"{by} overwrote the observation that {source} had returned: the array is used again. Return a copy: "
                "observation.copy()"
            )
        return result

    def _refuse(self, problem: Callable[..., str | None], when: str) -> None:
        wrong = problem()
        if wrong is None:
            return
        if problem(bounds=False) is not None:
            self.fail(f"{wrong} ({when})")
        if self._mode == "error":
            self.fail(f"{wrong} ({when}). {ADVICE}")
        self.notes.setdefault("bounds", f"{wrong} ({when}); the training goes on with observations beyond the bounds")


def difference(first: Any, second: Any) -> str:
    """Return where two observations of one space differ, bit for bit; "" if they don't."""
    if isinstance(first, dict | tuple):
        keys = list(first) if isinstance(first, dict) else range(len(first))
        found = ((key, difference(first[key], second[key])) for key in keys)
        return next((f"[{key!r}]{where}" for key, where in found if where), "")
    first, second = np.asarray(first), np.asarray(second)
    if first.tobytes() == second.tobytes():
        return ""
    different = np.argwhere(first != second)
    index = tuple(different[0].tolist()) if len(different) else (0,) * first.ndim
    where = f"[{', '.join(map(str, index))}]" if index else ""
    return f"{where} was {first[index]} the first time and {second[index]} the second"


def trace_difference(first: Trace, second: Trace) -> str:
    """Return at which step two plays differ, and in what; "" if they don't."""
    for step, (one, two) in enumerate(zip(first, second, strict=True), 1):
        where = difference(one[0], two[0])
        if where:
            return f"after step {step} observation{where}"
        for name, a, b in zip(("reward", "terminated", "truncated"), one[1:], two[1:], strict=True):
            if a != b:
                return f"after step {step} {name} was {a} the first time and {b} the second"
    return ""
