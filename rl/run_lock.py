"""Who may write into a run folder: one training at a time. The kernel frees a lock however its holder ends."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime import InputError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
_PATIENCE = 0.5
"""Seconds until a lock counts as held: one that only asks (`check_unlocked`) has it for a moment, too."""
_held: dict[Path, int] = {}
"""Folders that this process has locked, with the open lock files."""

logger = logging.getLogger("shoal")


def lock_run(folder: Path) -> None:
    """Take the lock of a run folder, which is made if needed, until `unlock_run` or the end of this process.

    Raises InputError naming process and command, if a training holds it already, in this process or another.
    """
    path = folder.resolve()
    if path in _held:
        raise InputError(
            f"run folder '{folder}' is being written by another training of this process: close that one first"
        )
    path.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, folder, _PATIENCE)
            if _is_still_there(descriptor, path):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder ended, and took the file along, between our two calls
    _held[path] = descriptor
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "command": shlex.join(sys.argv)}).encode(), 0)
    except BaseException:  # the disk is full
        unlock_run(folder)
        raise


def unlock_run(folder: Path) -> None:
    """Give a lock back and remove its file; nothing happens if this process does not hold it."""
    path = folder.resolve()
    descriptor = _held.pop(path, None)
    if descriptor is not None:
        (path / LOCK).unlink(missing_ok=True)  # while it is held: whoever waits for it sees that the file is gone
        os.close(descriptor)


def check_unlocked(folder: str | Path) -> None:
    """Raise InputError naming process and command, if another process holds the lock of a run folder."""
    path = Path(folder).resolve()
    if path in _held or not (path / LOCK).exists():
        return
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR)
    except FileNotFoundError:  # its holder ended just now
        return
    try:
        _lock(descriptor, Path(folder), 0)
    finally:
        os.close(descriptor)


@contextmanager
def turn_to_write(folder: Path) -> Iterator[None]:
    """Wait until no other process, or thread, is in such a block for the same folder."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, patience: float) -> None:
    if sys.platform == "win32":
        return
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise InputError(
                    f"run folder '{folder}' is being written by {_holder(descriptor)}. Wait for its end, or choose "
                    "another folder"
                ) from None
            time.sleep(0.01)
        except OSError as error:
            logger.warning("run folder '%s' cannot be locked (%s): let nothing else write there", folder, error)
            return


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 10_000, 0))
        return f"process {holder['pid']}: {holder['command']:.200}"
    except (ValueError, KeyError, TypeError):  # it has not written it yet
        return "another process"


def _is_still_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path / LOCK))
    except FileNotFoundError:
        return False


def _leave_to_parent() -> None:
    """In a forked child: close what it got of the locks, so that they end with the process that took them."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
