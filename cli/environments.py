"""Environments named on the command line: a registered id, or `module:Name` from the current folder."""

import importlib
import os
import sys
from pathlib import Path

from ..envs import missing_packages_named, register
from ..runtime import InputError, nearest


def look_in_current_folder(run: Path | None = None) -> str:
    """Have modules looked for in the current folder, too, and return it; not if it lies in the folder of `run`, whose
    files must not come in the place of a library's."""
    here = Path.cwd()
    if str(here) not in sys.path and (run is None or not here.is_relative_to(run.resolve())):
        sys.path.insert(0, str(here))
    return str(here)


def _module_of(file: str, attribute: str) -> str:
    """The module that a file is in the current folder; InputError if it lies outside."""
    path = Path(os.path.abspath(file))  # not what links lead to
    if not path.is_relative_to(Path.cwd()):
        raise InputError(
            f"{file!r} lies outside the current folder, in which modules are looked for: go to {str(path.parent)!r}, "
            f"and name {path.stem}:{attribute}"
        )
    return ".".join(path.relative_to(Path.cwd()).with_suffix("").parts)


def known_environment(name: str) -> str:
    """Return an environment's name, after making it known if it is of the form `module:Name`.

    A file is meant as its module: `myenvs.py:Line` is `myenvs:Line`. The module is looked for in the current folder,
    too. `Name` may be a class or factory in it, which is registered under the whole name, or an id that importing the
    module registers with gymnasium.

    Raises:
        InputError: there is no such module, or no such name in it, or it needs a package that is not installed.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        return name
    if module_name.endswith(".py"):
        module_name = _module_of(module_name, attribute)
        name = f"{module_name}:{attribute}"
    if not module_name or not attribute:
        raise InputError(f"environment {name!r}: want module:Class, or module:Env-v0, with a name on either side")
    here = look_in_current_folder()
    with missing_packages_named(name):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name != module_name.split(".")[0] and error.name != module_name:
                raise  # the module is there, and lacks something that it imports
            raise InputError(
                f"environment {name!r}: there is no module {module_name!r} in {here} or on sys.path"
            ) from None
    entry = getattr(module, attribute, None)
    if callable(entry):
        register(name, entry)
        return name
    if entry is None and "gymnasium" in sys.modules and attribute in sys.modules["gymnasium"].registry:
        return name
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    raise InputError(
        f"environment {name!r}: module {module_name!r} has no class or function {attribute!r}. "
        f"{nearest(attribute, public)}"
    )
