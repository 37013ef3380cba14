"""Importing what a file names: a saved description is not trusted, it must not be able to run anything else.

Names are checked before anything is imported, and no module is imported that lies in the folder that the name came
from: such a folder may come from somebody else.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from ..runtime import InputError


def is_dotted_name(text: str) -> bool:
    """Return whether a text is identifiers with dots between them."""
    return all(part.isidentifier() for part in text.split("."))


def import_named(module: str, needed_by: str, folder: Path | None) -> ModuleType:
    """Import a module, and the packages that it is in, unless one of them lies in `folder`.

    Args:
        module: its dotted name.
        needed_by: what names it, for messages, such as "environment 'Maze'".
        folder: where the name was read from; None: nothing is refused for its place.

    Raises:
        InputError: it is no name of a module, lies in the folder, or fails to import.
    """
    find_named(module, needed_by, folder)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0])
        where = ". Begin in the folder in which it lies, or name that folder in PYTHONPATH" if missing else ""
        raise InputError(f"{needed_by} needs the module {module!r}, which fails to import: {error}{where}") from error


def find_named(module: str, needed_by: str, folder: Path | None) -> ModuleSpec | None:
    """Find a module without importing it, though the packages that it is in are; None if there is none.

    Arguments, and InputError, as in `import_named`.
    """
    if not is_dotted_name(module):
        raise InputError(f"{needed_by} needs the module {module!r}, which is not the name of one")
    found: ModuleSpec | None = None
    parts = module.split(".")
    try:
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[:length])
            if name in sys.modules:
                found = sys.modules[name].__spec__
                continue
            found = importlib.util.find_spec(name)  # imports nothing: the packages that it is in are there by now
            if found is None:
                return None
            _check_outside(found, needed_by, folder)
            if length < len(parts):
                importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{needed_by} needs the module {module!r}, which fails to import: {error}") from error
    return found


def _check_outside(found: ModuleSpec, needed_by: str, folder: Path | None) -> None:
    if folder is None:
        return
    files = [found.origin] if found.has_location else []
    for place in (*files, *(found.submodule_search_locations or ())):
        if place is not None and Path(place).resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{needed_by} needs the module {found.name!r}, which lies in {str(folder)!r} itself, at {place}: "
                "what a run holds is not run. Import it yourself, if you trust it"
            )
