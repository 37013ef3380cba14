"""Which objects this process knows, which processes hold them, and when they may go: a state machine without I/O.

The process that makes a call owns the objects that it returns. The owner counts, for every object, its own references
and those of each borrower. Whoever sends a reference to a process says so to the owner (*lend*) before it sends it;
a process that has dropped all its references to an object says how many it had been given (*release*). Counts are
kept per borrower and signed: a release may overtake the loan that it answers, and the sum still comes out right,
since the lender's own count stays up until its release, which follows its loan on the same connection.

Methods are events; what they ask the outside to do is appended to `commands`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from ...core.ids import ObjectId, ProcessId, owner_of
from ...core.refs import object_gone
from ...core.values.unread import UnreadFailures
from ..protocol.messages import Span, Value


class FreeBlocks(msgspec.Struct, frozen=True):
    """Tell the makers that these blocks are not needed any more."""

    spans: list[Span]


class SendRelease(msgspec.Struct, frozen=True):
    """Tell the owner that this process has dropped what it was given."""

    object: ObjectId
    count: int


class SendLend(msgspec.Struct, frozen=True):
    """Tell the owner that a reference was passed on."""

    object: ObjectId
    to: ProcessId


class Gone(msgspec.Struct, frozen=True):
    """An object of this process's own has no holder left."""

    object: ObjectId


Command = FreeBlocks | SendRelease | SendLend | Gone


@dataclass(slots=True, eq=False)
class Record:
    """What is known of one object.

    Attributes:
        value: its value, once it is there.
        inner: what lives as long as the value: references that it contains, copies of its blocks on other nodes.
        local: references to it in this process.
        borrowers: for the owner: references held by others, signed.
        received: for a borrower: how many references it was given.
        waiters: what to call, once, when the value arrives.
        asked: whether the owner was asked for the value; true of the owner itself.
        absent: whether the owner has answered that there is none yet; true of the owner itself.
        read: for the owner: whether another process was sent the value, or a thread of this one read it.
    """

    value: Value | None = None
    inner: Any = None
    local: int = 0
    borrowers: dict[ProcessId, int] | None = None
    received: int = 0
    waiters: list[Callable[[], None]] | None = None
    asked: bool = False
    absent: bool = False
    read: bool = False

    def keep(self, more: Iterable[Any]) -> None:
        """Keep something alive as long as the value."""
        self.inner = [*(self.inner or ()), *more]


def spans_of(value: Value) -> list[Span]:
    """Return the blocks of shared memory that a value lies in."""
    spans = [buffer for buffer in value.buffers if type(buffer) is Span]
    if type(value.stream) is Span:
        spans.append(value.stream)
    return spans


def size_of(value: Value) -> int:
    """Return a value's bytes, wherever they are."""
    return sum(part.size if isinstance(part, Span) else len(part) for part in value.parts)


class ObjectTable:
    """All records of one process.

    Attributes:
        large: when each object of this process's own whose value lies in the store was last used; monotonic seconds.
        dead: processes that are gone; kept for ever, since what others say of them may come late.
        needed: objects that can be made again and may have to be: without a holder they lose only their value.
        watchers: told of each value that comes, and of which object: threads that wait for some of many.
    """

    def __init__(
        self,
        me: ProcessId,
        dead: set[ProcessId] | None = None,
        unread: UnreadFailures | None = None,
        needed: Container[ObjectId] = (),
    ) -> None:
        self.me, self.needed = me, needed
        self.records: dict[ObjectId, Record] = {}
        self.large: dict[ObjectId, float] = {}
        self.commands: deque[Command] = deque()
        self.watchers: list[Callable[[ObjectId, Value], None]] = []
        self._unread = unread
        self._due: deque[Callable[[], None]] = deque()
        self._is_calling = False
        self.dead: set[ProcessId] = set() if dead is None else dead

    def create(self, object_id: ObjectId) -> Record:
        """Begin an object of this process's own, with one local reference."""
        record = self.records[object_id] = Record()
        record.local = 1
        record.asked = record.absent = True
        return record

    def records_of(self, objects: Iterable[ObjectId]) -> list[Record]:
        """Return the records of objects; ObjectLostError for a reference that outlived its runtime."""
        try:
            return [self.records[object_id] for object_id in objects]
        except KeyError as error:
            raise object_gone(error.args[0]) from None

    def hold(self, object_id: ObjectId, given: int = 0, by: ProcessId | None = None) -> Record | None:
        """Count one more local reference; `given`: references that came with a message, sent `by` a process.

        Returns:
            the record; None if the object is this process's own and gone already.
        """
        record = self.records.get(object_id)
        if record is None:
            if owner_of(object_id) == self.me:
                return None
            record = self.records[object_id] = Record()
        record.local += 1
        record.received += given
        if given and by == self.me == owner_of(object_id):
            self._count(object_id, record, by, -given)
        return record

    def drop(self, object_id: ObjectId) -> None:
        """Count one local reference less."""
        record = self.records.get(object_id)
        if record is not None:
            record.local -= 1
            self._settle(object_id, record)

    def lend(self, object_id: ObjectId, to: ProcessId) -> None:
        """Note that a reference is about to be sent to a process."""
        owner = owner_of(object_id)
        if owner == self.me:
            self.lent(object_id, to)  # also to ourselves: an actor may call itself, and nothing else keeps a message
        elif to != owner:
            # To the owner itself a reference needs no loan: it goes before our release, on one connection.
            self.commands.append(SendLend(object_id, to))

    def lent(self, object_id: ObjectId, to: ProcessId) -> None:
        """Event: this process, or a borrower, has lent an object of ours."""
        record = self.records.get(object_id)
        if record is not None and to not in self.dead:
            self._count(object_id, record, to, 1)

    def released(self, object_id: ObjectId, by: ProcessId, count: int) -> None:
        """Event: a borrower has dropped what it was given."""
        record = self.records.get(object_id)
        if record is not None and by not in self.dead:
            self._count(object_id, record, by, -count)

    def _count(self, object_id: ObjectId, record: Record, holder: ProcessId, change: int) -> None:
        if record.borrowers is None:
            record.borrowers = {}
        count = record.borrowers.get(holder, 0) + change
        if count:
            record.borrowers[holder] = count
        else:
            record.borrowers.pop(holder, None)
            self._settle(object_id, record)

    def _settle(self, object_id: ObjectId, record: Record) -> None:
        """Forget the object if it is not held."""
        if record.local > 0 or record.borrowers:
            return
        if object_id in self.needed:
            self.take_value(record)
            return
        del self.records[object_id]
        record.inner = None
        if owner_of(object_id) == self.me:
            self.commands.append(Gone(object_id))
            if record.value is not None:
                if record.value.failed and not record.read:
                    self._drop_failure(record.value)
                self.discard(record.value)
            self.large.pop(object_id, None)
        else:
            self.commands.append(SendRelease(object_id, record.received))

    def settle(self, object_id: ObjectId) -> None:
        """Forget an object that is not held; only its value if a kept task needs it."""
        record = self.records.get(object_id)
        if record is not None:
            self._settle(object_id, record)

    def take_value(self, record: Record) -> None:
        """Take an own object's value away, as before it was made."""
        value, record.value, record.inner = record.value, None, None
        if value is not None:
            self.discard(value)

    def discard(self, value: Value) -> None:
        """Free the memory of a value that is not wanted."""
        spans = spans_of(value)
        if spans:
            self.commands.append(FreeBlocks(spans))

    def fulfil(self, object_id: ObjectId, value: Value, inner: Any = None) -> bool:
        """Event: the value has come. Call the waiters; False if the object is not held any more, or has a value."""
        record = self.records.get(object_id)
        if record is None:
            if owner_of(object_id) == self.me:
                if value.failed:
                    self._drop_failure(value)
                self.discard(value)
            return False
        if record.value is not None and owner_of(object_id) == self.me:
            self.discard(value)  # its task was run again for the sake of another object
            return False
        record.value, record.inner = value, inner
        if (value.buffers or type(value.stream) is Span) and owner_of(object_id) == self.me and spans_of(value):
            self.large[object_id] = time.monotonic()
        waiters, record.waiters = record.waiters, None
        for watcher in self.watchers:
            watcher(object_id, value)
        if waiters:
            self._due.extend(waiters)
            self._call_waiters()
        return True

    def _call_waiters(self) -> None:
        """Call those whose value has come. What fails for want of it has waiters, too: called from within, one call
        for each task of a chain, they would be nested deeper than the interpreter allows."""
        if self._is_calling:
            return
        self._is_calling = True
        try:
            while self._due:
                self._due.popleft()()
        finally:
            self._is_calling = False

    def read_failure(self, record: Record) -> Value:
        """Event: a failure is about to be read; return it."""
        value, record.read = record.value, True
        assert value is not None
        if self._unread is not None:
            self._unread.read(value.stream)  # type: ignore[arg-type]  # a failure's is always at hand
        return value

    def was_sent(self, object_id: ObjectId) -> None:
        """Event: another process was sent a value."""
        record = self.records.get(object_id)
        if record is not None:
            record.read = True

    def _drop_failure(self, value: Value) -> None:
        if self._unread is not None:
            self._unread.drop(value.stream)  # type: ignore[arg-type]  # see above

    def use(self, objects: Iterable[ObjectId]) -> None:
        """Event: values are about to be read."""
        if self.large:
            now = time.monotonic()
            self.large.update((object_id, now) for object_id in objects if object_id in self.large)

    def owns_any(self) -> bool:
        """Whether an object of this process's own has a holder."""
        return any(owner_of(object_id) == self.me for object_id in self.records)

    def process_died(self, process: ProcessId) -> list[ObjectId]:
        """Event: a process is gone, and with it all that it held.

        Returns:
            the objects that it owned and whose value is not here, or lies in blocks, which their makers take back.
        """
        self.dead.add(process)
        orphans = []
        for object_id, record in list(self.records.items()):
            if owner_of(object_id) == process:
                if record.value is None or spans_of(record.value):
                    orphans.append(object_id)
            elif record.borrowers and record.borrowers.pop(process, None) is not None:
                self._settle(object_id, record)
        return orphans
