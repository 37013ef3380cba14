"""Log files of a run, as Ray's `list_logs` and `get_log`; for this machine's node."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..exceptions import InputError, nearest
from .reports import NodeReport


def log_names(nodes: list[NodeReport]) -> list[str]:
    """Return the names of the log files."""
    return sorted({name for node in nodes if os.path.isdir(node.logs) for name in os.listdir(node.logs)})


def read_log(nodes: list[NodeReport], filename: str | None, pid: int | None, tail: int) -> Iterator[str]:
    """Yield the last `tail` lines of a log file, or of all those of a process; -1: all lines.

    Raises:
        InputError: there is no such file, or not one of filename and pid is given.
    """
    if (filename is None) == (pid is None):
        raise InputError("get_log wants either filename= or pid=; list_logs() returns the names of files")
    names = log_names(nodes)
    wanted = [name for name in names if name == filename or (pid is not None and _is_of(name, pid))]
    if not wanted:
        what = f"file {filename!r}" if pid is None else f"file of pid {pid}"
        raise InputError(
            f"get_log: there is no log {what}: nothing was printed. {nearest(str(filename or pid), names)}"
        )
    for name in wanted:
        for node in nodes:
            path = os.path.join(node.logs, name)
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    lines = file.read().splitlines()
                yield from lines if tail < 0 else lines[max(0, len(lines) - tail) :]


def _is_of(name: str, pid: int) -> bool:
    return str(pid) in name.replace(".", "-").replace("_", "-").split("-")
