"""Node ↔ fork server: make a process, this one ended."""

from __future__ import annotations

from ...core.ids import ProcessId
from .wire import Environment, Message


class Fork(Message):
    """Make a worker; the write ends of its standard output and error travel with this."""

    process: ProcessId
    title: str
    environment: Environment | None = None


class Forked(Message):
    """It runs under this pid."""

    process: ProcessId
    pid: int


class Exited(Message):
    """A child has ended, with this status as `os.wait4` gives it; `peak`: the most memory that it held, bytes."""

    pid: int
    status: int
    peak: int
