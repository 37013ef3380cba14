"""Files and folders that are there as a whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...data import whole_file
from ...runtime import InputError

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+)\n")
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


Content = bytes | Iterable[bytes | memoryview]
"""What a file shall hold: its bytes, or parts of them that are made one after the other, for one that need not fit into
memory."""


class DamagedError(InputError):
    """A saved file is not as it was written, or is missing; the message names it."""


def write_whole(path: Path, content: Content) -> str:
    """Write a file that appears under its name once it is complete and on the disk; an older one stays until then.
    Returns its SHA-256."""
    digest = hashlib.sha256()
    with whole_file(path) as file:
        for part in [content] if isinstance(content, bytes) else content:
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as the text of a JSON file. Raises ValueError for NaN and infinities, which JSON does not have."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file as a whole."""
    write_whole(path, json_bytes(document))


def with_sums(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files (name to content) with SHA256SUMS beside them, which `sha256sum -c SHA256SUMS` reads, too."""
    return {**files, SUMS: _sums({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})}


def write_summed(folder: Path, files: Mapping[str, Content]) -> None:
    """Write files into `folder`, which exists, with their checksums last: files of two writes are told apart."""
    digests = {name: write_whole(folder / name, content) for name, content in files.items()}
    write_whole(folder / SUMS, _sums(digests))


def _sums(digests: Mapping[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def read_summed(folder: Path, known: Iterable[str], large: Iterable[str] = ()) -> dict[str, bytes]:
    """Read all files that SHA256SUMS of `folder` lists, name to content, and compare them with their checksums. Those
    that are `large` are compared, but not returned.

    Raises:
        DamagedError: a file differs, is missing, or is one of `known` and not listed; or there is no SHA256SUMS.
    """
    text = _read(folder / SUMS).decode("ascii", "replace")
    listed = {name: digest for digest, name in _LINE.findall(text)}
    whole = "".join(f"{digest}  {name}\n" for name, digest in listed.items()) == text
    if not whole or not listed or any(name not in listed and (folder / name).exists() for name in known):
        raise DamagedError(f"{str(folder / SUMS)!r} is damaged or cut off")
    files = {name: _read(folder / name) for name in listed if name not in large}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    digests |= {name: _digest(folder / name) for name in listed if name in large}
    for name, digest in digests.items():
        if digest != listed[name]:
            raise DamagedError(f"{str(folder / name)!r} is damaged or cut off: its SHA-256 is not that in {SUMS}")
    return files


def _digest(path: Path) -> str:
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> bytes:
    with reading(path):
        return path.read_bytes()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be read in the block into a DamagedError."""
    try:
        yield
    except FileNotFoundError:
        raise DamagedError(f"{str(path.parent)!r} lacks the file {path.name}") from None
    except OSError as error:
        raise DamagedError(f"{str(path)!r} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn what Python says in the block of a file's content, where that is not what was written, into a DamagedError.
    Only for blocks that take the content apart: their own mistakes would be told so, too."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise DamagedError(
            f"{str(path)!r} is damaged, or from another program ({type(error).__name__}: {error}). Restore the file"
        ) from error


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
