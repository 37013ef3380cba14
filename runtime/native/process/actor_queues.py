"""The actors that a process knows: its calls to each, and what makes those that it owns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from operator import attrgetter

from msgspec import Struct, field

from ...engine import Function
from ...options import ActorOptions
from ...scheduling import SchedulingStrategy
from ..protocol import messages as m
from ..protocol.connection import Connection
from .calls import PendingCall
from .kept_log import KeptLog


class Constructor(Struct, eq=False):
    """For the owner: what makes the actor, as often as it must be made."""

    cls: Function
    options: ActorOptions
    arguments: PendingCall
    identity: bytes
    strategy: SchedulingStrategy | None

    def message(
        self,
        key: bytes,
        arguments: m.Value,
        slots: list[m.Value],
        restarts: int = 0,
        restoration: m.Restoration | None = None,
    ) -> m.Construct:
        """Return what makes a fresh worker the actor."""
        cls, limit, groups = self.cls, self.options.max_concurrency, dict(self.options.concurrency_groups)
        return m.Construct(key, cls.id, cls.name, arguments, slots, self.identity, limit, groups, restarts, restoration)


class ActorQueue(Struct, eq=False):
    """This process's calls to one actor, and what it knows of it.

    Attributes:
        lifetime: the object that stands for the actor's life; None: it is detached, or known by weak handles only.
        limits: of a concurrent actor, see `ActorId`; empty: calls are sent in order.
        constructor: for the owner: what makes the actor.
        checkpointed, log: whether it comes back with its state; for the owner: what brings it back.
        lineage: whether calls are kept to make lost values again.
        state: as the node has told it last: "pending", "alive", "restarting" or "dead".
        reason, failure: why it is dead or restarting.
        process, connection: where it lives, if it does.
        waiting: calls that are still to be sent, in order.
        inflight: those that were sent and not answered.
        interrupted: those that its process has died with, until the node says what becomes of the actor.
    """

    key: bytes
    name: str
    lifetime: bytes | None
    lineage: bool
    limits: Mapping[str, int]
    constructor: Constructor | None = None
    log: KeptLog | None = None
    checkpointed: bool = False
    state: str = "pending"
    reason: str = ""
    failure: bytes | None = None
    process: bytes | None = None
    connection: Connection | None = None
    waiting: deque[PendingCall] = field(default_factory=deque)
    inflight: dict[bytes, PendingCall] = field(default_factory=dict)
    interrupted: list[PendingCall] = field(default_factory=list)

    def put_back(self, calls: Iterable[PendingCall]) -> None:
        """Have calls made again, in the order in which all were made first: one in front of another whose result it
        waits for would hold that one up for ever."""
        for pending in sorted(calls, key=attrgetter("task"), reverse=True):  # so that each finds its place at the front
            later = (place for place, other in enumerate(self.waiting) if other.task > pending.task)
            self.waiting.insert(next(later, len(self.waiting)), pending)
