"""A run's folder: logs that outlive it, and copies for workers that don't.

    <directory>/session-<date>-<time>-<random>/logs       what workers printed and the node said
                                              /packages   copies of working_dir and py_modules, by content

The directory is `init(log_directory=…)`, else SHOAL_LOG_DIRECTORY, else shoal-<uid> in the folder of temporary files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time

from ...exceptions import InputError
from ..process.packages import packages_of

#: Ended sessions whose logs are kept; older ones are removed when a new one begins.
KEPT_SESSIONS = 5
_PREFIX = "session-"


def new_session(directory: str | None) -> tuple[str, str]:
    """Make the folder of a new run; return the run's name, which is part of all its socket names, and the folder.

    Raises:
        InputError: it cannot be made there, or the directory is another user's.
    """
    chosen = directory or os.environ.get("SHOAL_LOG_DIRECTORY")
    where = os.path.abspath(chosen or os.path.join(tempfile.gettempdir(), f"shoal-{os.getuid()}"))
    session = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(6).hex()}"
    folder = os.path.join(where, _PREFIX + session)
    try:
        os.makedirs(where, mode=0o700, exist_ok=True)
        if not chosen:
            _check_own(where)
        os.mkdir(folder, 0o700)
    except OSError as error:
        raise InputError(f"log_directory={where!r}: no folder can be made there: {error}. Give another one") from error
    return session, folder


def _check_own(folder: str) -> None:
    """Raise PermissionError unless a folder is this user's alone: in /tmp, others may have made it beforehand."""
    found = os.lstat(folder)  # not `stat`: a link of somebody else's may lead to a folder of ours
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{folder} is no folder but a link or file, owned by user {found.st_uid}")
    if found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to user {found.st_uid}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write into {folder}")


def logs_of(folder: str) -> str:
    """Return where a session's log files lie."""
    return os.path.join(folder, "logs")


class SessionFolder:
    """The node's hold on the folder: while it lives, no other session removes it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        _prune(os.path.dirname(folder), KEPT_SESSIONS)

    def close(self) -> None:
        """The session ends: its copies go, and all of it if nothing was logged."""
        shutil.rmtree(packages_of(self.folder), ignore_errors=True)
        with contextlib.suppress(OSError):  # it has logs, or somebody removed it
            os.rmdir(self.folder)
        os.close(self._lock)


def _prune(directory: str, keep: int) -> None:
    """Remove the oldest folders of sessions that have ended, except the `keep` latest."""
    with contextlib.suppress(OSError):  # somebody else tidies up, too
        entries = [entry for entry in os.scandir(directory) if entry.name.startswith(_PREFIX)]
        # In a folder that many use, only our own: opening another user's pipe would wait for ever.
        sessions = sorted(entry.path for entry in entries if _is_own_folder(entry))
        ended = [path for path in sessions if _has_ended(path)]
        for path in ended[: max(0, len(ended) - keep)]:
            shutil.rmtree(path, ignore_errors=True)


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid()


def _has_ended(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
