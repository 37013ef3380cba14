"""Which files a path stands for."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from ...runtime import InputError, InputTypeError, nearest
from ..elsewhere import require_local

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find_files(paths: Paths, suffixes: Sequence[str]) -> tuple[str, ...]:
    """The files that `paths` stand for: each is a file, a folder (all below it with one of `suffixes`), or a pattern.

    Those of a folder or a pattern are sorted by name, so that they have the same order on every machine; hidden ones
    (".x", "_x") are left out.

    Raises:
        InputError: there is no such file, or none with these suffixes in a folder.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if not isinstance(paths, Sequence) or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise InputTypeError(f"a path, or a list of paths, is wanted, not {paths!r:.80}")
    return tuple(file for path in paths for file in _find(os.fspath(path), tuple(suffixes)))


def _find(path: str, suffixes: tuple[str, ...]) -> list[str]:
    require_local(path)
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        below = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
        found = [file for file in below if file.endswith(suffixes) and not _is_hidden(os.path.relpath(file, path))]
        if not found:
            raise InputError(f"the folder {path!r} holds no file that ends in {' or '.join(suffixes)}")
        return sorted(found)
    found = [file for file in glob.glob(path, recursive=True) if os.path.isfile(file)]
    if found:
        return sorted(found)
    folder = Path(path).parent
    beside = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    raise InputError(f"there is no file {path!r}. {nearest(Path(path).name, beside)}".rstrip())


def _is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in Path(relative).parts)
