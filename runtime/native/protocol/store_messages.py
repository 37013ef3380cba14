"""Process ↔ node, about the object store: who may use how much memory, what moves to disk, who holds what."""

from __future__ import annotations

import msgspec

from ...ids import ObjectId, ProcessId
from .wire import Count, Message, Span


class Movable(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An object that its owner could move to disk: `size` bytes, last `used` at that time (monotonic seconds)."""

    object: ObjectId
    size: Count
    used: float


class LargeObject(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One of the largest objects of a process; `site`: where it was made, if that is recorded."""

    object: ObjectId
    size: Count
    viewed: bool
    site: str


class Holdings(msgspec.Struct, array_like=True, gc=False):
    """What a process owns in the store, and what it has made there for whomever; sizes in bytes.

    `lingering` is what it made, nobody refers to any more, and somebody still views.
    """

    objects: Count = 0
    size: Count = 0
    viewed: Count = 0
    blocks: Count = 0
    made: Count = 0
    lingering: Count = 0
    on_disk: Count = 0
    largest: list[LargeObject] = []


class NewArena(Message):
    """The descriptor of my arena travels with this."""

    on_disk: bool = False


class ArenaHeld(Message):
    """The node holds it under this number."""

    arena: int


class WantMemory(Message):
    """I need so many bytes more of the store."""

    request: int
    size: Count


class MemoryGranted(Message):
    """You may use so many bytes more: at least what the request asked for."""

    request: int
    size: Count


class MemoryRefused(Message):
    """There is no room for what you asked for; the reason is for the user."""

    request: int
    reason: str


class Trim(Message):
    """Give back what you do not use, and name what you could move to disk, about `wanted` bytes of it.

    `last`: nothing was gained for long; if this brings nothing either, somebody is refused.
    """

    wanted: Count
    last: bool = False


class Trimmed(Message):
    """The answer. `moving`: objects are on their way to disk right now."""

    returned: Count
    movable: list[Movable]
    moving: bool
    holdings: Holdings


class MemoryReturned(Message):
    """I use so many bytes less."""

    size: Count


class Spill(Message):
    """Move these objects of yours to disk."""

    objects: list[ObjectId]


class Spilled(Message):
    """So many bytes were moved; `trouble`: why not all: the folder, and what its file system says."""

    size: Count
    trouble: str


class AskNeeded(Message):
    """That process is dead and has left blocks of yours: it may not have read which ones you freed last."""

    maker: ProcessId


class StillNeeded(Message):
    """The answer: of what it left I need these blocks, and no others."""

    maker: ProcessId
    spans: list[Span]


__all__ = [
    "ArenaHeld",
    "AskNeeded",
    "Holdings",
    "LargeObject",
    "MemoryGranted",
    "MemoryRefused",
    "MemoryReturned",
    "Movable",
    "NewArena",
    "Spill",
    "Spilled",
    "StillNeeded",
    "Trim",
    "Trimmed",
    "WantMemory",
]
