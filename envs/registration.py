"""Environments by name: in this program, on its workers, and gymnasium's own.

A registered environment is published through the runtime, so that each worker on each node knows it at once, also
when its class was defined in a script or a notebook. Shoal's registry comes before gymnasium's, and registering an id
again replaces it: a notebook runs its cells more than once.
"""

import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from ..runtime import InputError, lookup, nearest, publish
from .agents import PettingZoo, pettingzoo_id
from .atari import PLAIN, PREPROCESSED, Atari
from .envpool_env import PREFIX as POOLED
from .envpool_env import EnvPoolEnv, has_task
from .external import EXTERNAL, External
from .language import task_id, task_ids, task_spec
from .packages import missing_package, registering_module
from .pickling import unpicklable_member
from .spec import EnvSpec, entry_name

#: Registered in this process. The runtime's copy is for the others: unpickling it here would bring its class's
#: attributes back to what they were at registration.
_registered: dict[str, EnvSpec] = {}

_INDEX = "envs"


def register(
    id: str,  # noqa: A002 (gymnasium's name for it)
    entry: Callable[..., gymnasium.Env] | str,
    *,
    max_episode_steps: int | None = None,
    reward_threshold: float | None = None,
    **kwargs: Any,
) -> None:
    """Make an environment known under an id, in this process and in every worker.

    Args:
        id: such as "MyEnv-v0". One that is known already, to Shoal or to gymnasium, is replaced.
        entry: a class or a function that returns an environment, or the id of an environment that is known already,
            of which this one becomes a variant.
        max_episode_steps: truncate episodes after so many steps; None: as the environment does itself (for a variant:
            as the original).
        reward_threshold: mean return from which on the task counts as solved; None: there is none (for a variant: as
            the original).
        kwargs: arguments of the class or factory.

    Raises:
        InputError: the entry cannot be sent to a worker (the message names the member that cannot be pickled), is not
            something that can be called, or names an unknown id.
    """
    if isinstance(entry, str):
        original = from_gymnasium(entry) if entry == id else resolve(entry)
        spec = EnvSpec(
            id,
            original.entry,
            {**original.kwargs, **kwargs},
            original.max_episode_steps if max_episode_steps is None else max_episode_steps,
            original.reward_threshold if reward_threshold is None else reward_threshold,
            module=_caller(),
        )
    else:
        _check_entry(entry, "register(id, entry)")
        spec = EnvSpec(id, entry, kwargs, max_episode_steps, reward_threshold, module=_caller())
    _check_picklable(spec)
    _registered[id] = spec
    publish(f"{_INDEX}/{id}", spec)
    publish(_INDEX, registered())


def _caller() -> str:
    """The module of the user's that calls the caller; "" if it is one of this package."""
    name = str(sys._getframe(2).f_globals.get("__name__", ""))
    return "" if name.partition(".")[0] == __name__.partition(".")[0] else name


def registered() -> list[str]:
    """Return the ids registered with `register`, sorted; gymnasium's own are in `gymnasium.registry`."""
    return sorted({*_registered, *(lookup(_INDEX) or ())})


def make(env: str | Callable[..., gymnasium.Env] | EnvSpec, **kwargs: Any) -> gymnasium.Env:
    """Return a new environment; arguments and errors as `resolve` and `EnvSpec.make`."""
    return resolve(env, kwargs).make()


def resolve(env: str | Callable[..., gymnasium.Env] | EnvSpec, env_kwargs: Mapping[str, Any] | None = None) -> EnvSpec:
    """Return the spec of an environment.

    Args:
        env: an id known to Shoal or gymnasium ("module:Env-v0" imports the module first), a class, a factory or a spec.
        env_kwargs: arguments of its class, on top of those registered. `max_episode_steps` among them, as in
            `gymnasium.make`, is the time limit instead.

    Raises:
        InputError: unknown id (the nearest known ones are named), or an entry that no worker could be sent.
    """
    spec = _find(env)
    if not env_kwargs:
        return spec
    if not isinstance(env_kwargs, Mapping):
        raise InputError(f"env_kwargs is {env_kwargs!r:.80}, but must be a dict of the constructor's arguments")
    kwargs = {**spec.kwargs, **env_kwargs}
    limit = kwargs.pop("max_episode_steps", None)
    limit = spec.max_episode_steps if limit is None else limit
    return dataclasses.replace(spec, kwargs=kwargs, max_episode_steps=limit)


def _import(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"environment {name!r} needs the module {module!r}, which fails to import: {missing_package(error)}"
        ) from error


def _find(env: Any) -> EnvSpec:
    if isinstance(env, EnvSpec):
        return env
    if isinstance(env, str):
        return _registered.get(env) or lookup(f"{_INDEX}/{env}") or _by_name(env)
    _check_entry(env, "env")
    spec = EnvSpec(entry_name(env).rpartition(".")[2].strip("<>") or type(env).__name__, env)
    _check_picklable(spec)
    return spec


def _by_name(name: str) -> EnvSpec:
    agents = pettingzoo_id(name)
    if agents is not None:
        return EnvSpec(agents, PettingZoo, {"game": agents})
    if name == EXTERNAL:
        return EnvSpec(name, External)
    if name.startswith(POOLED):
        return EnvSpec(name, EnvPoolEnv, {"task": name.removeprefix(POOLED)})
    if task_id(name):
        return EnvSpec(name, *task_spec(name))
    if not name.startswith(PREPROCESSED):
        return from_gymnasium(name)
    game = from_gymnasium(PLAIN + name.removeprefix(PREPROCESSED))
    return EnvSpec(name, Atari, {"game": game.id}, reward_threshold=game.reward_threshold, module=game.module)


def from_gymnasium(name: str) -> EnvSpec:
    """Return the spec of an id that gymnasium knows; else InputError.

    "module:Env-v0" imports the module first, and an id known to come with a package, such as "ALE/Pong-v5", that
    package.
    """
    module, separator, short = name.rpartition(":")
    if separator:
        _import(module, name)
    elif name not in gymnasium.registry:
        module = registering_module(name) or ""
        if module:
            _import(module, name)
    try:
        found = gymnasium.spec(short)
    except gymnasium.error.Error:
        known = [*registered(), *task_ids(), *gymnasium.registry]
        raise InputError(f"unknown environment {name!r}. {_suggest(short, known)}") from None
    # A worker knows the ids that gymnasium brings along; any other is sent to it with what it stands for.
    builtin = isinstance(found.entry_point, str) and found.entry_point.startswith("gymnasium.")
    entry: str | GymnasiumSpec = found.id if builtin else found
    spec = EnvSpec(found.id, entry, {}, found.max_episode_steps, found.reward_threshold, module=module)
    _check_picklable(spec)
    return spec


def _suggest(name: str, known: list[str]) -> str:
    elsewhere = re.fullmatch(r"(?:ale_py:)?(\w+?)(?:NoFrameskip|Deterministic)-v\d+", name)
    if elsewhere:
        game = elsewhere[1]
        return f"Here it is 'Atari/{game}-v5', preprocessed, or 'ALE/{game}-v5' as it is (extra atari)"
    if has_task(name):
        return (
            f"Here it is {POOLED + name!r}, as EnvPool has it; --vectorization envpool steps many at once, where "
            "observations have no parts"
        )
    module, dot, attribute = name.rpartition(".")
    if dot and attribute.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return f"A class in a module is named '{module}:{attribute}'"
    agents = pettingzoo_id(name.rpartition("/")[2]) if "/" in name else None
    hint = nearest(name, known) if agents is None else f"Did you mean {agents!r}?"
    if hint.startswith("Known:"):  # all of gymnasium's are too many to name
        own = registered()
        hint = f"Registered here: {', '.join(own)}." if own else "`shoal envs` lists those that can be made here."
    return (
        f"{hint} Register your own with envs.register(id, class), or name it module:Class, or module:Env-v0 where "
        "importing the module registers that id"
    )


def _check_entry(entry: Any, where: str) -> None:
    if isinstance(entry, gymnasium.Env):
        raise InputError(
            f"{where} is an environment that exists already ({type(entry).__name__}), but each worker makes copies of "
            f"its own: pass the class, {type(entry.unwrapped).__name__}, or a function that returns a new one"
        )
    if not callable(entry):
        raise InputError(
            f"{where} is {entry!r:.80} of type {type(entry).__name__}; wanted an environment's id, its class, or a "
            "function that returns one"
        )


def _check_picklable(spec: EnvSpec) -> None:
    if isinstance(spec.entry, str) and not spec.kwargs:
        return
    name = spec.id if isinstance(spec.entry, str) else entry_name(getattr(spec.entry, "entry_point", spec.entry))
    for value, called in ((spec.entry, name), (dict(spec.kwargs), f"{spec.id}, argument ")):
        where = unpicklable_member(value, called)
        if where is not None:
            raise InputError(
                f"environment {spec.id!r} cannot be sent to workers: {where} cannot be pickled. "
                "Create it in the environment's __init__, so that each copy makes its own"
            )
