"""Does an environment keep gymnasium's contract? Asked once, before training; the message says what to change."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from ..runtime import InputError
from .contract import reset_problem, step_problem
from .errors import EnvContractError
from .learned_state import refuse_learned_state
from .recovery import sample_actions
from .registration import resolve
from .reproducer import Moment, add_note
from .spaces import Role, check_supported, describe
from .spec import EnvSpec

# Random steps taken; enough to see ends of short episodes and values that drift out of bounds early.
_STEPS = 64
_SEEDS = (123, 124)


def check(env: str | Callable[..., gymnasium.Env] | EnvSpec | gymnasium.Env, **kwargs: Any) -> None:
    """Check an environment by resetting it and taking 64 random steps, twice.

    Checked are both spaces; that `reset` takes a seed and returns (observation, info), `step` (observation, reward,
    terminated, truncated, info); that each observation lies in its space, with the right shape and dtype, and each
    reward is a finite number; that observations are not overwritten by later calls; that the same seed and actions give
    the same observations, rewards and ends, unless the environment says in
    ``metadata = {"nondeterministic": True}`` or in its gymnasium registration that it is not deterministic.

    Args:
        env: an id, a class or factory, a spec, or an environment (it is left open, in the middle of an episode).
        kwargs: arguments of the class or factory.

    Raises:
        EnvContractError: the first thing found; names the field, the value seen, the value wanted and what to change.
        InputError: the environment is unknown, cannot be made, or has a space that is not supported.
        Exception: whatever the environment's own code raises, with a note that says where.
    """
    if isinstance(env, gymnasium.Env):
        if kwargs:
            raise InputError(f"check() makes no copy of an environment that exists: {', '.join(kwargs)} has no effect")
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        refuse_learned_state(env, name)
        _Check(EnvSpec(name, type(env.unwrapped)), env).run()
        return
    spec = resolve(env, kwargs)
    made = spec.make()
    try:
        _Check(spec, made).run()
    finally:
        made.close()


class _Check:
    """One environment being checked."""

    def __init__(self, spec: EnvSpec, env: gymnasium.Env) -> None:
        self.spec, self.env = spec, env
        self.taken: list[Any] = []
        self.seed = _SEEDS[0]
        declared = (env.metadata or {}).get("nondeterministic", False)
        self.deterministic = not (declared or (env.spec is not None and env.spec.nondeterministic))

    def run(self) -> None:
        self._check_spaces()
        actions = sample_actions(self.env.action_space, _STEPS, seed=0)
        self._check_reset()
        first = self._play(actions)
        if self.deterministic:
            self._compare(first, self._play(actions))

    def _check_spaces(self) -> None:
        roles: tuple[Role, Role] = ("observation", "action")
        for role in roles:
            space = getattr(self.env, f"{role}_space", None)
            if space is None:
                self._fail(
                    f"it sets no {role}_space: set self.{role}_space in __init__, such as gymnasium.spaces.Box(…)"
                )
            try:
                check_supported(space, role)
            except InputError as error:
                raise type(error)(f"environment {self.spec.id!r}: {error}") from None
            if isinstance(space, Box):
                wrong = np.argwhere(~(space.low <= space.high))
                if len(wrong):
                    index = tuple(wrong[0].tolist())
                    low, high = space.low[index], space.high[index]
                    self._fail(f"{role}_space {describe(space)} has low{list(index)} = {low} above high = {high}")

    def _check_reset(self) -> None:
        first = self._reset()
        self._check_not_reused(first, copy.deepcopy(first), "reset()", self._reset, "reset()")
        again, _ = self._reset(), self._reset(_SEEDS[1])
        if self.deterministic:
            difference = _difference(first, again)
            if difference:
                self._fail(
                    f"reset(seed={_SEEDS[0]}) is not deterministic: observation{difference}. Call "
                    "super().reset(seed=seed) in reset() and draw all random numbers from self.np_random"
                )

    def _check_not_reused(self, kept: Any, before: Any, source: str, call: Callable[[], Any], by: str) -> Any:
        """Make a call and see whether it changed an observation that was returned earlier."""
        result = call()
        difference = _difference(before, kept)
        if difference or (isinstance(kept, np.ndarray) and self._observation_of(result) is kept):
            self._fail(
                f"{by} overwrote the observation that {source} had returned: the array is used again. Return a copy: "
                "observation.copy()"
            )
        return result

    def _play(self, actions: list[Any]) -> list[tuple[Any, float, bool, bool]]:
        """Take steps, resetting where an episode ends; check and return what came out."""
        out = []
        kept, source = self._reset(), "reset()"
        for action in actions:
            result = self._check_not_reused(kept, copy.deepcopy(kept), source, partial(self._step, action), "step()")
            kept, reward, terminated, truncated, _ = result
            out.append((copy.deepcopy(kept), float(reward), bool(terminated), bool(truncated)))
            source = "step()"
            if terminated or truncated:
                kept, source = self._check_not_reused(kept, out[-1][0], source, self._reset, "reset()"), "reset()"
        return out

    def _compare(self, first: list[tuple[Any, float, bool, bool]], again: list[tuple[Any, float, bool, bool]]) -> None:
        for step, (one, two) in enumerate(zip(first, again, strict=True), 1):
            difference = _difference(one[0], two[0])
            what = f"observation{difference}" if difference else ""
            for name, a, b in zip(("reward", "terminated", "truncated"), one[1:], two[1:], strict=True):
                what = what or (f"{name} was {a} the first time and {b} the second" if a != b else "")
            if what:
                self._fail(
                    f"step() is not deterministic: with reset(seed={_SEEDS[0]}) and the same actions, after step "
                    f"{step} {what}. Draw all random numbers from self.np_random and begin each episode in reset() "
                    'alike; if that cannot be, say so: metadata = {"nondeterministic": True}'
                )

    def _reset(self, seed: int = _SEEDS[0]) -> Any:
        self.taken, self.seed = [], seed
        try:
            result = self.env.reset(seed=seed)
        except Exception as error:
            if isinstance(error, TypeError) and "'seed'" in str(error):
                self._fail(
                    "reset() takes no argument 'seed': declare it as reset(self, *, seed=None, options=None) and call "
                    "super().reset(seed=seed) first"
                )
            add_note(error, self.spec, Moment(0, seed=seed), "reset")
            raise
        problem = reset_problem(result, self.env.observation_space)
        if problem is not None:
            self._fail(f"{problem} (reset(seed={seed}))")
        return result[0]

    def _step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        self.taken.append(action)
        try:
            result = self.env.step(copy.copy(action))
        except Exception as error:
            add_note(error, self.spec, Moment(0, 0, self.seed, np.array(self.taken)), "step", len(self.taken))
            raise
        problem = step_problem(result, self.env.observation_space)
        if problem is not None:
            self._fail(f"{problem} (step {len(self.taken)} after reset(seed={self.seed}))")
        return result

    @staticmethod
    def _observation_of(result: Any) -> Any:
        return result[0] if isinstance(result, tuple) else result

    def _fail(self, problem: str) -> NoReturn:
        raise EnvContractError(f"environment {self.spec.id!r}: {problem}") from None


def _difference(first: Any, second: Any) -> str:
    """Say where two observations of one space differ, bit for bit; "" if they don't."""
    first, second = np.asarray(first), np.asarray(second)
    if first.tobytes() == second.tobytes():
        return ""
    different = np.argwhere(first != second)
    index = tuple(different[0].tolist()) if len(different) else (0,) * first.ndim
    where = f"[{', '.join(map(str, index))}]" if index else ""
    return f"{where} was {first[index]} the first time and {second[index]} the second"
