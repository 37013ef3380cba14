"""A stream of values of one task, as its caller sees it: promised objects, in order, which the values fulfil."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from ...context import current_engine
from ...generators import ObjectRefGenerator
from ...refs import ObjectRef
from ..protocol import messages as m
from .calls import Pending, cancelled, finish
from .lineage import Why
from .objects import spans_of

if TYPE_CHECKING:
    from .client import Client


class Calls(Protocol):
    """Where the call was queued: tasks, or calls of actors."""

    def withdraw(self, pending: Pending) -> bool:
        """Take a call out of its queue; False if it was sent already."""

    def tell(self, pending: Pending, message: m._Message) -> None:
        """Send a message to whoever has the call."""


class Stream:
    """The values that have arrived and were not taken, behind them the promise of the next one.

    The next value's object exists before the value does, so waiting for it is waiting for an object like any other.
    An attempt after a crash makes the same values again: those that have arrived keep their objects.

    Attributes:
        arrived: how many values there were so far.
        taken: how many of them were taken.
    """

    __slots__ = ("_calls", "_client", "_completed", "_ended", "_pending", "_promises", "_window", "arrived", "taken")

    def __init__(self, client: Client, pending: Pending, completed: ObjectRef, calls: Calls, window: int) -> None:
        self._completed = completed
        self._client, self._pending, self._calls = client, pending, calls
        self._window = window
        self._promises: deque[ObjectRef] = deque()
        self.taken = 0
        self._ended = False
        self.arrived = 0
        self._promise()

    def _promise(self) -> None:
        self._promises.append(self._client.new_ref(self._client.new_ids(1)[0]))

    # Events, under the lock -------------------------------------------------------------------------------------

    def on_item(self, index: int, value: m.Value, by: bytes | None) -> None:
        """Event: the next value has come."""
        if index != self.arrived or not self._promises:  # it came in an earlier attempt, or nobody wants it
            self._client.adopt_all(value, by)
            self._client.objects.discard(value)
        else:
            self._arrive(value, by)

    def _arrive(self, value: m.Value, by: bytes | None) -> None:
        promised = self._promises[-1]
        self.arrived += 1
        self._promise()  # first: whoever waits for the value may take it at once
        self._client.fulfil(promised.id, value, by)
        if spans_of(value) and promised.id in self._client.objects.records:
            self._client.recovery.lineage.not_kept(promised.id, [promised.id], Why.STREAM)

    def finish(self, failure: m.Value | None) -> None:
        """Event: the task has ended, perhaps with an exception, which is the last value then."""
        if self._promises and not self._ended:
            if failure is not None:
                self._arrive(failure, None)
            self._ended = True
            self._client.fulfil(self._promises[-1].id, m.Value(b""))  # who waits for a value finds that there is none

    # For the generator, in any thread ---------------------------------------------------------------------------

    def head(self) -> ObjectRef | None:
        """Return the object that the next value will be, or is; None at the end."""
        with self._client.lock:
            return None if not self._promises or (self._ended and len(self._promises) == 1) else self._promises[0]

    def take(self, head: ObjectRef) -> bool:
        """Take the value, which is there; False if it is the end after all, or another thread was quicker."""
        with self._client.lock:
            if self.head() is not head:
                return False
            self._promises.popleft()
            self.taken += 1
            if self._window and not self._ended:
                self._calls.tell(self._pending, m.Taken(self._pending.task, self.taken))
            return True

    def completed(self) -> ObjectRef:
        """Return the reference of the task's end."""
        return self._completed

    def cancel(self, force: bool, recursive: bool) -> None:
        """Cancel the task."""
        current_engine().cancel(self._completed, force, recursive)

    def close(self) -> None:
        """Drop what was not taken, and have no more made."""
        with self._client.lock:
            if not self._promises:
                return
            self._promises.clear()
            pending = self._pending
            if pending.task not in self._client.calls:
                return
            pending.extend().cancelled = True
            if self._calls.withdraw(pending):
                finish(self._client, pending, [cancelled(pending)])
            else:
                self._calls.tell(pending, m.StopStream(pending.task))


def open_stream(client: Client, pending: Pending, completed: ObjectRef, calls: Calls) -> ObjectRefGenerator:
    """Give a call a stream; return the generator, which closes the stream when nobody has it any more."""
    extras = pending.extend()
    stream = extras.stream = Stream(client, pending, completed, calls, extras.told.window if extras.told else 0)
    handle = client.new_ref(client.new_ids(1)[0])
    client.on_gone[handle.id] = stream.close
    return ObjectRefGenerator(stream, handle)
