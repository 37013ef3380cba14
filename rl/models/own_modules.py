"""A user's own network by its import path, "package.module:Class", which a checkpoint can hold without pickle."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
from pathlib import Path
from typing import Any

from ...envs import find_named, import_named
from ...runtime import InputError, nearest


def check_import_path(what: str, path: str, folder: Path | None = None) -> None:
    """Raise InputError, naming the nearest, if there is no such module, or its source has no such name.

    The module itself is not imported (it would import torch), only the packages that it is in; none that lies in
    `folder`, from where the path was read. `what` is the setting, for messages.
    """
    module, _, name = path.partition(":")
    if module == "__main__":
        raise InputError(
            f"{what} is {path!r}, a class of the script that runs, which other processes and later programs cannot "
            f"import: put it into a module of its own, such as networks.py, and name it 'networks:{name}'"
        )
    found = find_named(module, f"{what} {path!r}", folder)
    if found is None:
        raise InputError(f"{what} is {path!r}, but there is no module {module!r}. {_nearest_module(module)}".rstrip())
    if found.origin is None or not found.origin.endswith(".py"):
        return  # compiled: the import will tell
    defined = _names(Path(found.origin))
    if name not in defined and "*" not in defined:
        public = [other for other in defined if not other.startswith("_")]
        raise InputError(
            f"{what} is {path!r}, but the module {module!r} ({found.origin}) has no {name!r}. {nearest(name, public)}"
        )


def load_named(what: str, path: str) -> Any:
    """What a path names; InputError as in `check_import_path`, or if the module cannot be imported."""
    check_import_path(what, path)
    module, _, name = path.partition(":")
    return getattr(import_named(module, f"{what} {path!r}", None), name, None)


def load_own_module(what: str, path: str) -> Any:
    """The class that a path names; InputError if it cannot be imported or is no `nn.Module`. Imports torch."""
    from torch import nn

    found = load_named(what, path)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(
            f"{what} is {path!r}, which is {found!r:.80}, but must be a class derived from torch.nn.Module"
        )
    return found


def _nearest_module(module: str) -> str:
    """The sentence that names modules like the first part of `module` that is not there."""
    package, _, last = module.rpartition(".")
    if not package:
        hint = nearest(last, {entry.name for entry in pkgutil.iter_modules()})
        return hint if hint.startswith("Did") else ""  # else it names hundreds
    parent = importlib.util.find_spec(package)
    if parent is None:
        return _nearest_module(package)
    return nearest(last, [entry.name for entry in pkgutil.iter_modules(parent.submodule_search_locations or [])])


def _names(source: Path) -> set[str]:
    """Names that a module's source defines or imports at its top level, also inside of `if` and `try`; "*" for all of
    another module."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name):
            names.add(node.id)
        else:
            waiting += ast.iter_child_nodes(node)
    return names
