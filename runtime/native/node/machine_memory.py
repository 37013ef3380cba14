"""The memory that this machine or container has left, its holders, and whether the kernel has killed for want of it.

The kernel's files are read below a given root, so that tests can bring their own.
"""

from __future__ import annotations

import contextlib
import os
import re

import msgspec

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Memory(msgspec.Struct, frozen=True):
    """Bytes of memory: all there is for us, and what can still be had."""

    total: int
    available: int

    @property
    def used(self) -> float:
        """The part in use, 0 to 1."""
        return 1 - self.available / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{in_words(self.available)} of {in_words(self.total)} are available"


def in_words(size: int) -> str:
    """Return a number of bytes to be read by people."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1024:.0f} KiB"


def _read(root: str, *path: str) -> str:
    try:
        with open(os.path.join(root, *path)) as file:
            return file.read()
    except OSError:  # not this kernel, or not for our eyes
        return ""


def _number(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:?\s+(\d+)", text, re.MULTILINE)
    return None if found is None else int(found[1])


def _cgroups(root: str) -> list[tuple[str, str]]:
    """Return (version, folder) of the cgroups that limit our memory, the nearest first."""
    found = []
    for line in _read(root, "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            version, top = ("2", "sys/fs/cgroup") if not controllers else ("1", "sys/fs/cgroup/memory")
            # Inside a container the path is often the host's, and our own cgroup is mounted at the top.
            found += [(version, os.path.join(top, path.strip("/"))), (version, top)]
    return found


def read_memory(root: str = "/") -> Memory:
    """Return the memory of the machine, or of the cgroup that we are in if that has less."""
    info = _read(root, "proc/meminfo")
    total = (_number(info, "MemTotal") or 0) * 1024
    best = Memory(total, (_number(info, "MemAvailable") or 0) * 1024)
    for version, folder in _cgroups(root):
        limit_file, use_file = {
            "2": ("memory.max", "memory.current"),
            "1": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        }[version]
        limit, use = _read(root, folder, limit_file).strip(), _read(root, folder, use_file).strip()
        if limit.isdigit() and use.isdigit() and int(limit) < total:
            # The kernel gives up cached files before it kills anybody.
            cached = _number(_read(root, folder, "memory.stat"), "(?:total_)?inactive_file") or 0
            available = int(limit) - max(0, int(use) - cached)
            if available < best.available:
                best = Memory(int(limit), max(0, available))
    return best


def read_oom_kills(root: str = "/") -> int:
    """Return how many processes the kernel has killed so far for want of memory: in our cgroup, else everywhere."""
    for version, folder in _cgroups(root):
        count = _number(_read(root, folder, "memory.events" if version == "2" else "memory.oom_control"), "oom_kill")
        if count is not None:
            return count
    return _number(_read(root, "proc/vmstat"), "oom_kill") or 0


def biggest_processes(count: int = 3, root: str = "/") -> list[tuple[int, str, int]]:
    """Return (pid, name, bytes) of the processes that hold most memory, the biggest first."""
    found = []
    for entry in os.listdir(os.path.join(root, "proc")):
        if entry.isdigit():
            with contextlib.suppress(ValueError, IndexError):  # it has ended meanwhile
                resident = int(_read(root, "proc", entry, "statm").split()[1]) * _PAGE
                command = _read(root, "proc", entry, "cmdline").rstrip("\0").replace("\0", " ")
                found.append((int(entry), (command or _read(root, "proc", entry, "comm").strip())[:60], resident))
    return sorted(found, key=lambda process: -process[2])[:count]
