"""What an environment is made from: a picklable description that each worker makes its own copies of."""

import copy
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec
from gymnasium.wrappers import TimeLimit

from ..runtime import InputError, as_int, as_number, nearest
from .action_mask import MaskFromInfo, mask_of
from .agents import is_joint, joint_env, tell_state
from .closing import closing_on_error
from .errors import EnvContractError
from .fresh_world import with_fresh_worlds
from .generators import PrivateGenerators
from .learned_state import refuse_learned_state
from .packages import missing_packages_named

#: A gymnasium id, a gymnasium spec (for ids that other packages or the user's program registered), a class or factory.
Entry = str | GymnasiumSpec | Callable[..., gymnasium.Env]


@dataclass(frozen=True)
class EnvSpec:
    """One kind of environment; `make` returns a new copy of it.

    Attributes:
        id: the name in messages, configuration and results.
        entry: a gymnasium id, a gymnasium spec, or a class or function that returns an environment.
        kwargs: arguments of the class or factory; each copy gets copies of its own, as they were given.
        max_episode_steps: an episode is truncated after so many steps; None: the environment ends its episodes itself.
        reward_threshold: the mean return from which on the task counts as solved, if there is one.
        module: the module whose import makes the id known, where that is known ("" if not).
        generators: global generators that it draws from, of `generators.GENERATORS`: each copy gets its own.
        mask_from_info: whether the mask of its actions, which it tells in `info`, is moved into its observations.
        tells_state: whether joint observations of several agents hold the environment's own state.
    """

    id: str
    entry: Entry
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    reward_threshold: float | None = None
    generators: tuple[str, ...] = ()
    mask_from_info: bool = False
    tells_state: bool = False
    module: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id or any(c.isspace() for c in self.id):
            raise InputError(f"an environment's id must be a text without spaces, such as 'MyEnv-v0', not {self.id!r}")
        limit, threshold = as_int(self.max_episode_steps), as_number(self.reward_threshold)
        if self.max_episode_steps is not None and (limit is None or limit < 1):
            raise InputError(
                f"{self.id}: max_episode_steps must be an integer ≥ 1 or None, not {self.max_episode_steps!r}"
            )
        if self.reward_threshold is not None and threshold is None:
            raise InputError(f"{self.id}: reward_threshold must be a number or None, not {self.reward_threshold!r}")
        # Not numpy's: JSON, from which a resumed run makes the environment again, has none of them.
        kwargs = {name: value.item() if isinstance(value, np.generic) else value for name, value in self.kwargs.items()}
        object.__setattr__(self, "kwargs", _own(kwargs))  # what the caller does with theirs later is not ours
        object.__setattr__(self, "max_episode_steps", limit)
        object.__setattr__(self, "reward_threshold", threshold)

    def make(self) -> gymnasium.Env:
        """Return a new copy, without gymnasium's passive checker (`check` does more, once).

        Raises:
            InputError: an argument that the environment does not take or lacks, or a package that is not installed.
            EnvContractError: the factory returned something else than a gymnasium environment, or one with a wrapper
                that learns how to scale observations.
        """
        with missing_packages_named(self.id):
            env = self._make()
        with closing_on_error(env, self.id):
            refuse_learned_state(env, self.id)
            if self.tells_state:
                tell_state(env, self.id)
            if self.mask_from_info and mask_of(env.observation_space) is None:
                env = MaskFromInfo(env)
        return PrivateGenerators(env, self.generators) if self.generators else env

    def _make(self) -> gymnasium.Env:
        if isinstance(self.entry, str | GymnasiumSpec):
            return self._make_by_gymnasium(self.entry)
        self._check_arguments(self.entry, self.kwargs)
        made = _own_entry(self.entry)(**_own(self.kwargs))
        env = joint_env(made, self.id) if is_joint(made) and not isinstance(made, gymnasium.Env) else made
        if not isinstance(env, gymnasium.Env):
            raise EnvContractError(f"{self.id}: {entry_name(self.entry)} returned {_what_it_is(env)}")
        return env if self.max_episode_steps is None else TimeLimit(env, self.max_episode_steps)

    def _make_by_gymnasium(self, entry: str | GymnasiumSpec) -> gymnasium.Env:
        try:
            spec = gymnasium.spec(entry) if isinstance(entry, str) else entry
            creator = _creator(spec)
            if creator is not None:
                self._check_arguments(creator, {**spec.kwargs, **self.kwargs})
            # Whoever steps it has reset it.
            unordered = replace(spec, order_enforce=False)
            made = gymnasium.make(
                unordered, max_episode_steps=self.max_episode_steps, disable_env_checker=True, **_own(self.kwargs)
            )
            return with_fresh_worlds(made)
        except gymnasium.error.DependencyNotInstalled:
            raise
        except gymnasium.error.Error as error:
            raise InputError(f"environment {self.id!r} cannot be made: {error}") from error

    def _check_arguments(self, creator: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
        try:
            signature = inspect.signature(creator)
        except (TypeError, ValueError):  # written in C: it has no signature to check against
            return
        try:
            signature.bind(**kwargs)
        except TypeError as error:
            known = [name for name in signature.parameters if name != "self"]
            for name in kwargs:
                if name not in known:
                    hint = nearest(name, known) if known else "It takes none."
                    raise InputError(f"environment {self.id!r} takes no argument {name!r}. {hint}") from None
            raise InputError(
                f"environment {self.id!r}: {error}; give it to register(…), make(…) or --env-kwargs"
            ) from None


def _own(value: Any) -> Any:
    """Return a copy, nested values included; what cannot be copied, such as a module, is shared."""
    if type(value) is dict:
        return {key: _own(item) for key, item in value.items()}
    try:
        return copy.deepcopy(value)
    except Exception:  # a user's class may forbid it in any way
        return value


def _own_entry(entry: Callable[..., gymnasium.Env]) -> Callable[..., gymnasium.Env]:
    if not isinstance(entry, functools.partial):
        return entry
    return functools.partial(entry.func, *(_own(value) for value in entry.args), **_own(entry.keywords))


def _what_it_is(made: Any) -> str:
    """Say what a factory returned instead of an environment, and what works."""
    cls = type(made)
    kind = f"{made!r:.80} of type {cls.__name__}"
    if isinstance(made, gymnasium.vector.VectorEnv):
        return f"{kind}, many environments at once: return one of them, Shoal makes as many as n_envs says"
    if any(base.__module__.partition(".")[0] == "gym" for base in cls.__mro__):
        return (
            f"{kind}, an environment of the old gym package: return "
            'gymnasium.make("GymV21Environment-v0", env=…) of it (pip install "shimmy[gym-v21]")'
        )
    return f"{kind}, which is not a gymnasium.Env: let the class derive from gymnasium.Env"


def entry_name(entry: Any) -> str:
    """Return what a class, factory or partial is called in its program."""
    entry = getattr(entry, "func", entry)
    return getattr(entry, "__qualname__", type(entry).__qualname__)


def _creator(spec: GymnasiumSpec) -> Callable[..., Any] | None:
    if not isinstance(spec.entry_point, str):
        return spec.entry_point
    module, _, name = spec.entry_point.partition(":")
    return getattr(importlib.import_module(module), name)
