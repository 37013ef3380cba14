"""What the serial engine keeps of objects and actors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..engine import ActorId, Function, Host, Running
from ..options import ActorOptions
from ..private_loop import PrivateLoop
from ..refs import ObjectRef
from ..scheduling import SchedulingStrategy
from .log import SerialLog


@dataclass
class Value:
    """A stored object: its pickle and buffers, or a serialised exception. `inner` keeps what it refers to alive."""

    stream: bytes = b""
    buffers: list[Any] = field(default_factory=list)
    inner: list[ObjectRef] = field(default_factory=list)
    failure: bytes | BaseException | None = None
    count: int = 0
    read: bool = False


@dataclass
class Actor:
    """A living or dead actor. Its arguments are kept serialised, so that a restart begins with what was passed."""

    function: Function
    arguments: Value
    argument_refs: list[ObjectRef]
    options: ActorOptions
    info: ActorId
    log: SerialLog
    lifetime: bytes | None
    namespace: str
    surroundings: dict[str, Any] = field(default_factory=dict)
    strategy: SchedulingStrategy | None = None
    instance: Any = None
    restarts: int = 0
    running: str | None = None
    leaving: bool = False
    death: str | None = None
    cause: bytes | None = None
    loop: PrivateLoop | None = None

    def call(self, method: str, task_id: bytes | None = None, name: str | None = None) -> Running:
        """Return a call of this actor as the code inside it is to see it."""
        host = Host(self.info, self.options.name, self.namespace, self.restarts)
        function_name = f"{self.info.class_name}.{method}"
        return Running(task_id, name or function_name, function_name, host)

    def may_restart(self) -> bool:
        """Return whether it may be made again."""
        return self.options.max_restarts == -1 or self.restarts < self.options.max_restarts

    def close_loop(self) -> None:
        """End its event loop, if it has one."""
        if self.loop is not None:
            self.loop.close()
            self.loop = None


def size_of(value: Value) -> int:
    """Return a stored value's bytes."""
    return len(value.stream) + sum(memoryview(buffer).nbytes for buffer in value.buffers)
