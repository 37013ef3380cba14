"""An environment's spec as JSON, and a spec made of that again, perhaps in another program.

A saved description is not trusted: it names what is to be imported, and must not be able to run anything else. Names
are checked before anything is imported; no module is imported that lies in the folder that the description came from;
what is called is a class derived from gymnasium.Env or PettingZoo's, or a function of the user's own, in the current
folder.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from ..runtime import InputError
from .agents import has_agents
from .named_modules import import_named, is_dotted_name
from .registration import from_gymnasium, registered, resolve
from .spec import EnvSpec, entry_name

_FIELDS = ("kwargs", "max_episode_steps", "reward_threshold", "mask_from_info", "tells_state")


def spec_to_json(spec: EnvSpec) -> dict[str, Any]:
    """Return a description that JSON can hold; `spec_from_json` makes a spec of it again where that is possible.

    A class or factory is described by its module and name, never by its code, and with the module that registered it;
    arguments that JSON cannot hold are left out, and noted under "missing".
    """
    kwargs, missing = _split(spec.kwargs)
    main = sys.modules.get("__main__")
    return {
        "id": spec.id,
        "entry": _entry_to_json(spec),
        "module": spec.module,
        "script": Path(getattr(main, "__file__", None) or "").name,
        "kwargs": kwargs,
        "missing": missing,
        "max_episode_steps": spec.max_episode_steps,
        "reward_threshold": spec.reward_threshold,
        "mask_from_info": spec.mask_from_info,
        "tells_state": spec.tells_state,
    }


def spec_from_json(description: Mapping[str, Any], *, folder: str | Path | None = None) -> EnvSpec:
    """Return the spec that `spec_to_json` described.

    An id that is registered now, or by the module that registered it then, is made from its registered entry; else
    the class is imported.

    Args:
        description: what `spec_to_json` returned.
        folder: where it was read from: no module that lies in there is imported.

    Raises:
        InputError: the description is not one, or the environment cannot be found; says what to register.
    """
    try:
        name, entry, missing = description["id"], description["entry"], description["missing"]
        fields = {key: description[key] for key in _FIELDS}
        module = str(description["module"])
        whole = isinstance(name, str) and isinstance(entry, Mapping) and isinstance(fields["kwargs"], Mapping)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"not the description of an environment: {description!r:.200}")
    within = None if folder is None else Path(folder)
    known = name in registered() or entry.get("gymnasium") in gymnasium.registry
    if not known and module not in ("", "__main__"):
        import_named(module, f"environment {name!r}", within)
    if name in registered():
        found = resolve(name)
        kwargs = {**{key: found.kwargs[key] for key in missing if key in found.kwargs}, **fields["kwargs"]}
        return dataclasses.replace(found, **{**fields, "kwargs": kwargs})
    if missing:
        raise InputError(
            f"environment {name!r} was made with arguments that could not be saved ({', '.join(missing)}): "
            f"call envs.register({name!r}, …) with them first, or pass the environment itself"
        )
    return EnvSpec(name, _find_entry(name, entry, description, within), **fields, module=module)


def _split(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments that JSON can hold, and the names of the others."""
    kept = {name: value for name, value in arguments.items() if _survives_json(value)}
    return kept, [name for name in arguments if name not in kept]


def _survives_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _entry_to_json(spec: EnvSpec) -> dict[str, Any]:
    entry = spec.entry
    if isinstance(entry, str):
        return {"gymnasium": entry}
    if not isinstance(entry, GymnasiumSpec):
        return {"python": _python_name(entry)}
    made_by = entry.entry_point if isinstance(entry.entry_point, str) else _python_name(entry.entry_point)
    described: dict[str, Any] = {"gymnasium": entry.id, "python": made_by}
    kwargs, missing = _split(entry.kwargs)
    if not missing and not entry.additional_wrappers:  # else the class alone would make another environment
        described |= {"kwargs": kwargs, "nondeterministic": entry.nondeterministic}
    return described


def _python_name(entry: Any) -> str:
    return "" if entry is None else f"{getattr(entry, '__module__', '')}:{entry_name(entry)}"


def _find_entry(name: str, entry: Mapping[str, Any], description: Mapping[str, Any], folder: Path | None) -> Any:
    made_by = str(entry.get("python", ""))
    module, _, qualname = made_by.partition(":")
    if "gymnasium" in entry:
        known = str(entry["gymnasium"])
        package = module.partition(".")[0]
        if known not in gymnasium.registry and package not in ("", "__main__"):
            import_named(package, f"environment {name!r}", folder)  # as a rule a package registers its environments
        if known in gymnasium.registry or "kwargs" not in entry:
            return from_gymnasium(_plain_id(known)).entry
    imported = None if module in ("", "__main__") else import_named(module, f"environment {name!r}", folder)
    found: Any = imported
    for attribute in qualname.split("."):
        found = getattr(found, attribute, None)
    is_class = isinstance(found, type) and (issubclass(found, gymnasium.Env) or has_agents(found))
    if not is_class and not (imported is not None and _is_users_own(found, imported)):
        raise InputError(_not_found(name, made_by, str(description.get("script", ""))))
    if "gymnasium" not in entry:
        return found
    return GymnasiumSpec(
        str(entry["gymnasium"]), found, kwargs=dict(entry["kwargs"]), nondeterministic=bool(entry["nondeterministic"])
    )


def _plain_id(known: str) -> str:
    if ":" in known:  # gymnasium would import what stands before it
        raise InputError(f"{known!r} is not the id of an environment")
    return known


def _is_users_own(found: Any, module: ModuleType) -> bool:
    """Whether this is a function of a module in the current folder: no other function is called for a description."""
    file = getattr(module, "__file__", None)
    here = file is not None and Path(file).resolve().is_relative_to(Path.cwd())
    return here and inspect.isfunction(found) and found.__module__ == module.__name__


def _not_found(name: str, made_by: str, script: str) -> str:
    module, _, qualname = made_by.partition(":")
    advice = f"call envs.register({name!r}, …) first, or pass the environment itself"
    if module != "__main__":
        return (
            f"environment {name!r} was made by {made_by or 'unknown'!r}, which is not a class that can be imported "
            f"here, nor a function of a module in this folder: {advice}"
        )
    if not script.endswith(".py") or script == "__main__.py":
        return f"environment {name!r} was defined in a notebook or an interactive session: {advice} there"
    told = f"environment {name!r} was defined in the script {script}, which is not imported by itself: {advice}"
    if not is_dotted_name(qualname):
        return told
    return (
        f"{told}; on the command line, name it {script.removesuffix('.py')}:{qualname} (what the script runs must then "
        'stand under if __name__ == "__main__")'
    )
