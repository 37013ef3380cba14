"""Does an environment keep gymnasium's contract? Asked once, before training; the message says what to change."""

import contextlib
import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium

from ..runtime import InputError
from .action_mask import can_be_masked, mask_of
from .check_spaces import check_spaces
from .checked import Calls, CheckedEnvironment, Trace, difference, trace_difference
from .closing import closing
from .copies import make_copy
from .diagnosis import nondeterminism
from .errors import EnvContractError, EnvContractWarning
from .generators import GENERATORS, PrivateGenerators, own_generators, used_generators
from .learned_state import refuse_learned_state
from .recovery import sample_actions
from .registration import resolve
from .seed_checks import generator_states, own_seed, seed_problem
from .spaces import MASK
from .spec import EnvSpec

# Random steps taken; enough to see ends of short episodes and values that drift out of bounds early.
_STEPS = 64
_SEED, _OTHER_SEED = 123, 124


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What a check found out.

    Attributes:
        spec: what the environment is made from, with the global generators that it draws from.
        observation_space: of the environment.
        action_space: of the environment.
        notes: what is probably not meant, though a training can run with it.
    """

    spec: EnvSpec
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    notes: tuple[str, ...]


def check(env: str | Callable[..., gymnasium.Env] | EnvSpec | gymnasium.Env, **kwargs: Any) -> None:
    """Check an environment by resetting it and taking 64 random steps, several times.

    Checked are both spaces; that `reset` takes a seed and returns (observation, info), `step` (observation, reward,
    terminated, truncated, info); that each observation lies in its space, with the right shape and dtype, and each
    reward is a finite number; that observations are not overwritten by later calls; that the same seed and actions give
    the same observations, rewards and ends, in this copy and in another one, unless the environment says in
    ``metadata = {"nondeterministic": True}`` or in its gymnasium registration that it is not deterministic; and that
    the seed decides what is drawn.

    Args:
        env: an id, a class or factory, a spec, or an environment (it is left open, in the middle of an episode).
        kwargs: arguments of the class or factory.

    Raises:
        EnvContractError: the first thing found; names the field, the value seen, the value wanted and what to change.
        InputError: the environment is unknown, cannot be made, or has a space that is not supported.
        Exception: whatever the environment's own code raises, with a note that says where.

    Warns:
        EnvContractWarning: what is probably not meant, though a training can run with it.
    """
    if isinstance(env, gymnasium.Env):
        if kwargs:
            raise InputError(f"check() makes no copy of an environment that exists: {', '.join(kwargs)} has no effect")
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        refuse_learned_state(env, name)
        spec = EnvSpec(name, type(env.unwrapped))
        calls = Calls(spec)
        with contextlib.closing(calls), own_generators(_SEED):
            found = _Check(CheckedEnvironment(spec, env, calls, "error")).run(None)
            assert found is not None
    else:
        found = inspect_environment(resolve(env, kwargs))
    for note in found.notes:
        warnings.warn(f"environment {found.spec.id!r}: {note}", EnvContractWarning, stacklevel=2)


def inspect_environment(
    spec: EnvSpec, *, run_seed: int = 0, mode: str = "error", step_timeout: float | None = None
) -> Inspection:
    """Check an environment as `check` does, and return what was found out.

    Args:
        spec: what it is made from.
        run_seed: seed of the run.
        mode: whether an observation outside of the bounds of its Box is an error or a note ("warn").
        step_timeout: seconds after which a constructor, a reset or a step is interrupted; None: no limit.

    Raises:
        EnvTimeoutError: one of them took longer.
        Exception: as `check`.
    """
    calls = Calls(spec, step_timeout)

    def make() -> CheckedEnvironment:
        with calls("__init__"):
            return CheckedEnvironment(spec, make_copy(spec, run_seed, 0), calls, mode)

    with contextlib.closing(calls), own_generators(run_seed):
        checked = make()
        with closing(checked.env, spec.id):
            found = _Check(checked).run(make)
    if found is None:
        masked = dataclasses.replace(spec, mask_from_info=True)
        return inspect_environment(masked, run_seed=run_seed, mode=mode, step_timeout=step_timeout)
    return found


class _Check:
    """The check of one environment."""

    def __init__(self, checked: CheckedEnvironment) -> None:
        self.checked, self.env, self.spec = checked, checked.env, checked.spec
        declared = (self.env.metadata or {}).get("nondeterministic", False)
        self.deterministic = not (declared or (self.env.spec is not None and self.env.spec.nondeterministic))
        self.notes: list[str] = []
        self.actions: list[Any] = []

    def run(self, make: Callable[[], CheckedEnvironment] | None) -> Inspection | None:
        """Check everything; `make` returns a further copy, None if there can be none.

        Returns None where the mask of the actions is told in `info`, so that another environment is to be checked: the
        one with the mask in its observations.
        """
        wrong = check_spaces(self.env, self.spec.id)
        if wrong is not None:
            self.checked.fail(wrong)
        self._check_signature()
        self.checked.reset(_SEED)
        if make is not None and self._tells_mask():
            return None
        self.actions = sample_actions(self.env.action_space, _STEPS, seed=0)
        first, generators = self._find_generators()
        self._check_reset()
        if self.deterministic:
            self._compare(first, self._play(_SEED), "step() is not deterministic")
            with self._another(make, generators) as other:
                if other is not self.checked:
                    self._compare_copies(first, other.play(self.actions, _SEED))
                self._check_seed(other, first, generators)
        spec = dataclasses.replace(self.spec, generators=(*self.spec.generators, *generators))
        notes = (*self.notes, *self.checked.notes.values())
        return Inspection(spec, self.env.observation_space, self.env.action_space, notes)

    def _tells_mask(self) -> bool:
        has_one = mask_of(self.env.observation_space) is not None
        return MASK in self.checked.info and not has_one and can_be_masked(self.env.action_space)

    def _play(self, seed: int) -> Trace:
        return self.checked.play(self.actions, seed)

    def _check_signature(self) -> None:
        try:
            parameters = inspect.signature(self.env.unwrapped.reset).parameters
        except (TypeError, ValueError):  # written in C
            return
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        wanted = "declare it as reset(self, *, seed=None, options=None)"
        if "options" not in parameters and not takes_any:
            self.notes.append(f"reset() takes no argument 'options': {wanted}")
        default = parameters["seed"].default if "seed" in parameters else None
        if default is not None and default is not inspect.Parameter.empty:
            self.notes.append(f"reset() has the default seed {default!r}, so all its episodes are the same: {wanted}")

    def _find_generators(self) -> tuple[Trace, tuple[str, ...]]:
        """Play, and see from which global generators it draws; give it its own, as each copy of a training has."""
        used: set[str] = set()
        with used_generators(used):
            trace = self._play(_SEED)
        names = tuple(name for name in GENERATORS if name in used)
        if names:
            self.notes.append(
                f"it draws from the global generator of {' and '.join(names)}, which all of a process shares. In a "
                "training each copy gets one of its own, which begins anew with every reset; better draw from "
                "self.np_random"
            )
            self.checked.env = PrivateGenerators(self.env, names)
            trace = self._play(_SEED)
        return trace, names

    def _check_reset(self) -> None:
        checked, seeds = self.checked, []
        first = checked.reset(_SEED)
        seeds.append(own_seed(self.env))
        again = checked.keeping(first, "reset()", lambda: checked.reset(_SEED), "reset()")
        seeds.append(own_seed(self.env))
        checked.reset(_OTHER_SEED)
        seeds.append(own_seed(self.env))
        if not self.deterministic:
            return
        where = difference(first, again)
        if where:
            self._fail_nondeterministic(f"reset(seed={_SEED}) is not deterministic: observation{where}", "in reset()")
        self._fail_if(seed_problem(seeds, same=False, drawn=[]))

    def _check_seed(self, checked: CheckedEnvironment, first: Trace, generators: tuple[str, ...]) -> None:
        """See whether the seed decides anything, where something is drawn."""
        checked.reset(_SEED)
        one = generator_states(checked.env)
        checked.reset(_OTHER_SEED)
        other = generator_states(checked.env)
        second = checked.play(self.actions, _OTHER_SEED)
        end = generator_states(checked.env)
        drawn = [name for name, state in other.items() if one.get(name) == state != end.get(name)]
        same = not trace_difference(first, second)
        self._fail_if(seed_problem([None] * 3, same, [*drawn, *generators]))

    def _compare(self, first: Trace, second: Trace, what: str) -> None:
        where = trace_difference(first, second)
        if where:
            alike = f"with reset(seed={_SEED}) and the same actions"
            self._fail_nondeterministic(f"{what}: {alike}, {where}", "and begin each episode in reset() alike")

    @contextlib.contextmanager
    def _another(
        self, make: Callable[[], CheckedEnvironment] | None, generators: tuple[str, ...]
    ) -> Iterator[CheckedEnvironment]:
        """Give a further copy, which has taken no steps yet; the same one if there can be none."""
        try:
            other = self.checked if make is None else make()
        except Exception as error:  # it may be the only one of its kind, as a robot or a licence is
            self.notes.append(f"no second copy of it can be made ({error!r:.200}), so copies were not compared")
            other = self.checked
        if other is self.checked:
            yield other
            return
        with closing(other.env, self.spec.id):
            if generators:
                other.env = PrivateGenerators(other.env, generators)
            yield other

    def _compare_copies(self, first: Trace, second: Trace) -> None:
        """See whether a further copy does the same: its constructor may draw what no seed reaches."""
        where = trace_difference(first, second)
        if where:
            self.checked.fail(
                f"its copies differ: with reset(seed={_SEED}) and the same actions, {where}, in another copy. What the "
                "constructor draws must be the same in each copy: draw it in reset(), from self.np_random"
            )

    def _fail_nondeterministic(self, problem: str, remedy: str) -> None:
        raise EnvContractError(
            f"environment {self.spec.id!r}: {problem}. "
            f"{nondeterminism(self.env, self._same_twice, lambda: self._play(_SEED), remedy)}"
        )

    def _same_twice(self, env: gymnasium.Env) -> bool:
        """Whether an environment within the wrappers is deterministic."""
        before, self.checked.env = self.checked.env, env
        try:
            return not trace_difference(self._play(_SEED), self._play(_SEED))
        finally:
            self.checked.env = before

    def _fail_if(self, problem: str | None) -> None:
        if problem is not None:
            self.checked.fail(problem)
