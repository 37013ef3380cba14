"""What the serial engine keeps of objects and actors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .engine import ActorId, Function
from .options import ActorOptions
from .refs import ObjectRef
from .scheduling import SchedulingStrategy
from .serial_log import SerialLog


@dataclass
class Value:
    """A stored object: its pickle and buffers, or a serialised exception. `inner` keeps what it refers to alive."""

    stream: bytes = b""
    buffers: list[Any] = field(default_factory=list)
    inner: list[ObjectRef] = field(default_factory=list)
    failure: bytes | BaseException | None = None
    count: int = 0


@dataclass
class Actor:
    """A living or dead actor. Its arguments are kept serialised, so that a restart begins with what was passed."""

    function: Function
    arguments: Value
    argument_refs: list[ObjectRef]
    options: ActorOptions
    info: ActorId
    log: SerialLog
    surroundings: dict[str, Any] = field(default_factory=dict)
    strategy: SchedulingStrategy | None = None
    instance: Any = None
    restarts: int = 0
    running: str | None = None
    death: str | None = None
    cause: bytes | None = None


def size_of(value: Value) -> int:
    """Return a stored value's bytes."""
    return len(value.stream) + sum(memoryview(buffer).nbytes for buffer in value.buffers)
