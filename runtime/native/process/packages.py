"""Copies of local folders and modules for workers: named by their content, without what .gitignore leaves out."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...core.resources.machine_memory import human_bytes
from ...exceptions import RuntimeEnvSetupError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

#: Bytes, about Ray's limit. A larger folder is nearly always a mistake: data or checkpoints that nobody meant to copy.
MOST_BYTES = 500_000_000
_ALWAYS_EXCLUDED = (".git/", "__pycache__/")


def packages_of(folder: str) -> str:
    """Return where the copies lie in a session's folder."""
    return os.path.join(folder, "packages")


def _is_ignored(path: str, rules: Sequence[tuple[str, GitIgnoreSpec]]) -> bool:
    """Whether rules, each below its folder, leave out a path: the last one that says something of it counts."""
    said = (spec.check_file(path[len(base) :]).include for base, spec in reversed(rules))
    return next((excludes for excludes in said if excludes is not None), False)


def _files(top: str, excludes: Sequence[str]) -> Iterator[str]:
    """Yield the files to copy, relative to `top`, in a fixed order."""
    from pathspec import GitIgnoreSpec

    last = ("", GitIgnoreSpec.from_lines([*_ALWAYS_EXCLUDED, *excludes]))
    waiting: list[tuple[str, tuple[tuple[str, GitIgnoreSpec], ...], tuple[str, ...]]] = [("", (), ())]
    while waiting:
        folder, rules, above = waiting.pop()
        real = os.path.realpath(os.path.join(top, folder))
        if real in above:  # a link to a folder that it lies in
            continue
        ignore_file = os.path.join(top, folder, ".gitignore")
        if os.path.isfile(ignore_file):
            with open(ignore_file, errors="replace") as lines:
                rules = (*rules, (folder, GitIgnoreSpec.from_lines(lines)))
        for entry in sorted(os.scandir(os.path.join(top, folder)), key=lambda entry: entry.name):
            path = folder + entry.name + "/" * entry.is_dir()
            if _is_ignored(path, (*rules, last)):
                continue
            if entry.is_dir():
                waiting.append((path, rules, (*above, real)))
            elif entry.is_file():
                yield path


def copy_package(source: str, into: str, excludes: Sequence[str] = (), *, below: bool = False) -> str:
    """Copy a folder or file to where workers can use it; return the folder of the copy, which its content names.

    Args:
        source: a folder, or a single file.
        into: the folder of all copies.
        excludes: patterns of what to leave out, as in .gitignore.
        below: a folder lies inside the copy under its own name, not as the copy itself; a file always does.

    Raises:
        RuntimeEnvSetupError: it cannot be read or written, or is larger than `MOST_BYTES`.
    """
    scratch = os.path.join(into, f".{os.getpid()}-{os.urandom(4).hex()}")
    name = os.path.basename(source)
    folder = os.path.isdir(source)
    target = os.path.join(scratch, name) if below and folder else scratch
    digest = hashlib.blake2b(name.encode() if target != scratch else b"", digest_size=12)
    sizes: dict[str, int] = {}
    total = 0
    try:
        os.makedirs(target, mode=0o700)
        for path in _files(source, excludes) if folder else [name]:
            sizes[path] = _copy(os.path.join(source, path) if folder else source, os.path.join(target, path), digest)
            digest.update(f"\0{path}\0{sizes[path]}\0".encode())
            total += sizes[path]
            if total > MOST_BYTES:
                raise _too_large(source, sizes)
        copy = os.path.join(into, digest.hexdigest())
        try:
            os.rename(scratch, copy)  # at once: another process may make the same copy, or use it already
        except OSError:
            if not os.path.isdir(copy):
                raise
        return copy
    except OSError as error:
        raise RuntimeEnvSetupError(f"runtime_env: {source} cannot be copied for workers: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(source: str, target: str, digest: hashlib.blake2b) -> int:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    size = 0
    with open(source, "rb") as reading, open(target, "wb") as writing:
        while chunk := reading.read(1 << 20):
            digest.update(chunk)
            writing.write(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                raise _too_large(source, {os.path.basename(source): size})
        mode = os.fstat(reading.fileno()).st_mode & 0o777
    os.chmod(target, mode | 0o600)
    digest.update(b"x" if mode & 0o100 else b"-")
    return size


def _too_large(source: str, sizes: dict[str, int]) -> RuntimeEnvSetupError:
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    return RuntimeEnvSetupError(
        f"runtime_env: {source} has more than {human_bytes(MOST_BYTES)}; its largest files so far: "
        + ", ".join(f"{path} ({human_bytes(size)})" for path, size in largest)
        + ". Leave data out with excludes=[…] or a .gitignore, and have workers read it from where it lies"
    )
