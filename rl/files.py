"""Files and folders that are there as a whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..runtime import InputError

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+)\n")
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


class DamagedError(InputError):
    """A saved file is not as it was written, or is missing; the message names it."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name once it is complete and on the disk; an older one stays until then."""
    partial = path.with_name(f".{path.name}.tmp")  # one name, so that the next write removes what a kill left
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as the text of a JSON file. Raises ValueError for NaN and infinities, which JSON does not have."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file as a whole."""
    write_whole(path, json_bytes(document))


def with_sums(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files (name to content) with SHA256SUMS beside them, which `sha256sum -c SHA256SUMS` reads, too."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()]
    return {**files, SUMS: "".join(lines).encode()}


def write_summed(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into `folder`, which exists, with their checksums last: files of two writes are told apart."""
    for name, content in with_sums(files).items():
        write_whole(folder / name, content)


def read_summed(folder: Path, known: Iterable[str]) -> dict[str, bytes]:
    """Read all files that SHA256SUMS of `folder` lists, name to content, and compare them with their checksums.

    Raises:
        DamagedError: a file differs, is missing, or is one of `known` and not listed; or there is no SHA256SUMS.
    """
    text = _read(folder / SUMS).decode("ascii", "replace")
    listed = {name: digest for digest, name in _LINE.findall(text)}
    whole = "".join(f"{digest}  {name}\n" for name, digest in listed.items()) == text
    if not whole or not listed or any(name not in listed and (folder / name).exists() for name in known):
        raise DamagedError(f"{str(folder / SUMS)!r} is damaged or cut off")
    files = {name: _read(folder / name) for name in listed}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != listed[name]:
            raise DamagedError(f"{str(folder / name)!r} is damaged or cut off: its SHA-256 is not that in {SUMS}")
    return files


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{str(path.parent)!r} lacks the file {path.name}") from None
    except OSError as error:
        raise DamagedError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def exchange(one: Path, other: Path) -> None:
    """Let two folders or files of one file system change names, with no moment in which either name is missing.

    Raises OSError where the system or the file system cannot (ENOSYS, EINVAL).
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one))
