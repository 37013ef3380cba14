"""Who may write into a run folder: one training at a time. The kernel frees a lock however its holder ends."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...runtime import InputError

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
    if sys.platform == "win32":  # which has no such locks
        return
    descriptor = -1
    while not _is_still_there(descriptor, path):  # its holder took the file along as it ended, between our two calls
        _close(descriptor)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, folder, fcntl.LOCK_EX, _PATIENCE)
        except BaseException:
            os.close(descriptor)
            raise
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
        if _is_still_there(descriptor, path):
            (path / LOCK).unlink()  # while it is held: whoever waits for it sees that the file is gone
        os.close(descriptor)


def check_unlocked(folder: str | Path) -> None:
    """Raise InputError naming process and command, if another process holds the lock of a run folder."""
    path = Path(folder).resolve()
    if path in _held or sys.platform == "win32":
        return
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):  # nobody writes there
        return
    try:
        _lock(descriptor, Path(folder), fcntl.LOCK_SH, 0)  # shared: several may ask at once
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
        with suppress(OSError):  # some network file systems lock no folders: whoever trains there has locked the run
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, kind: int, patience: float) -> None:
    if sys.platform == "win32":
        return
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
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
    """Whether the open file is the one that lies in the folder."""
    try:
        return descriptor >= 0 and os.path.samestat(os.fstat(descriptor), os.stat(path / LOCK))
    except FileNotFoundError:
        return False


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _leave_to_parent() -> None:
    """In a forked child: close what it got of the locks, so that they end with the process that took them."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
