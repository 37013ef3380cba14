"""The memory that this machine or container has and has left, its holders, and whether the kernel has killed for it.

The kernel's files are read below a given root, so that tests can bring their own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import msgspec

_PAGE = os.sysconf("SC_PAGE_SIZE")
_UNITS = ("B", "KB", "MB", "GB", "TB")
# Files of a cgroup, by its version: how much memory it may use, and uses.
_FILES = {"2": ("memory.max", "memory.current"), "1": ("memory.limit_in_bytes", "memory.usage_in_bytes")}


class Memory(msgspec.Struct, frozen=True):
    """Bytes of memory: all there is for us, and what can still be had."""

    total: int
    available: int

    @property
    def used(self) -> float:
        """The part in use, 0 to 1."""
        return 1 - self.available / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{human_bytes(self.available)} of {human_bytes(self.total)} are available"


def human_bytes(size: float) -> str:
    """Return a size in words: 1.5 MB."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} B"


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


def _limits(root: str, total: int) -> Iterator[tuple[int, int, str]]:
    """Yield (limit, bytes in use, folder) of the cgroups that give us less than the machine has."""
    for version, folder in _cgroups(root):
        limit, use = (_read(root, folder, file).strip() for file in _FILES[version])
        if limit.isdigit() and use.isdigit() and int(limit) < total:
            yield int(limit), int(use), folder


def machine_memory(root: str = "/") -> int:
    """Return the bytes of memory that this machine has, or that its container may use."""
    total = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return min([total, *(limit for limit, _, _ in _limits(root, total))])


def read_memory(root: str = "/") -> Memory:
    """Return the memory of the machine, or of the cgroup that we are in if that has less left."""
    info = _read(root, "proc/meminfo")
    total = (_number(info, "MemTotal") or 0) * 1024
    best = Memory(total, (_number(info, "MemAvailable") or 0) * 1024)
    for limit, use, folder in _limits(root, total):
        # The kernel gives up cached files before it kills anybody.
        cached = _number(_read(root, folder, "memory.stat"), "(?:total_)?inactive_file") or 0
        available = limit - max(0, use - cached)
        if available < best.available:
            best = Memory(limit, max(0, available))
    return best


def read_oom_kills(root: str = "/") -> int:
    """Return how many processes the kernel has killed so far for want of memory: in our cgroup, else everywhere."""
    for version, folder in _cgroups(root):
        count = _number(_read(root, folder, "memory.events" if version == "2" else "memory.oom_control"), "oom_kill")
        if count is not None:
            return count
    return _number(_read(root, "proc/vmstat"), "oom_kill") or 0


def biggest_processes(count: int = 3) -> list[tuple[int, str, int]]:
    """Return (pid, name, bytes) of the processes that hold most memory, the biggest first."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(ValueError, IndexError):  # it has ended meanwhile
                resident = int(_read("/proc", entry, "statm").split()[1]) * _PAGE
                command = _read("/proc", entry, "cmdline").rstrip("\0").replace("\0", " ")
                found.append((int(entry), (command or _read("/proc", entry, "comm").strip())[:60], resident))
    return sorted(found, key=lambda process: -process[2])[:count]
