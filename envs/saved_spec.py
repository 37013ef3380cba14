"""An environment's spec as JSON, and a spec made of that again, perhaps in another program.

A saved description is not trusted: it names what is to be imported, and must not be able to run anything else. Names
are checked before anything is imported; no module is imported that lies in the folder that the description came from;
what is called is a class derived from gymnasium.Env, or a function of the user's own, in the current folder.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
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
from .registration import from_gymnasium, registered, resolve
from .spec import EnvSpec, entry_name


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
        fields = {key: description[key] for key in ("kwargs", "max_episode_steps", "reward_threshold")}
        module = str(description["module"])
        whole = isinstance(name, str) and isinstance(entry, Mapping) and isinstance(fields["kwargs"], Mapping)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"not the description of an environment: {description!r:.200}")
    within = None if folder is None else Path(folder)
    known = name in registered() or entry.get("gymnasium") in gymnasium.registry
    if not known and module not in ("", "__main__"):
        _import(module, name, within)
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
        return bool(json.loads(json.dumps(value)) == value)
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
            _import(package, name, folder)  # as a rule a package registers its environments
        if known in gymnasium.registry or "kwargs" not in entry:
            return from_gymnasium(_plain_id(known)).entry
    imported = None if module in ("", "__main__") else _import(module, name, folder)
    found: Any = imported
    for attribute in qualname.split("."):
        found = getattr(found, attribute, None)
    is_class = isinstance(found, type) and issubclass(found, gymnasium.Env)
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
    if not _is_dotted_name(qualname):
        return told
    return (
        f"{told}; on the command line, name it {script.removesuffix('.py')}:{qualname} (what the script runs must then "
        'stand under if __name__ == "__main__")'
    )


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _import(module: str, name: str, folder: Path | None) -> ModuleType:
    """Import a module, and the packages that it is in, unless one of them lies in `folder`."""
    if not _is_dotted_name(module):
        raise InputError(f"environment {name!r} needs the module {module!r}, which is not the name of one")
    try:
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            package = ".".join(parts[:length])
            if package not in sys.modules:
                _check_outside(package, name, folder)
                importlib.import_module(package)
        return sys.modules[module]
    except ImportError as error:
        raise InputError(f"environment {name!r} needs the module {module!r}, which fails to import: {error}") from error


def _check_outside(module: str, name: str, folder: Path | None) -> None:
    found = importlib.util.find_spec(module)  # imports nothing: the packages that it is in are there by now
    if found is None or folder is None:
        return
    files = [found.origin] if found.has_location else []
    for place in (*files, *(found.submodule_search_locations or ())):
        if place is not None and Path(place).resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"environment {name!r} needs the module {module!r}, which lies in {str(folder)!r} itself, at {place}: "
                "what a run holds is not run. Import it yourself, if you trust it, or pass the environment"
            )
