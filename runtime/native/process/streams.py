"""A stream of values of one task, as its caller sees it: promised objects, in order, which the values fulfil."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ...context import current_engine
from ...exceptions import ObjectReconstructionFailedError
from ...failure import pack_error
from ...generators import ObjectRefGenerator
from ...refs import ObjectRef, short
from ..protocol import messages as m
from .calls import Pending, cancelled, finish
from .objects import spans_of

if TYPE_CHECKING:
    from .client import Client


class Calls(Protocol):
    """Where the call was queued: tasks, or calls of actors."""

    def has_sent(self, pending: Pending) -> bool:
        """Whether the call has been sent."""

    def withdraw(self, pending: Pending) -> bool:
        """Take a call out of its queue; False if it was sent already."""

    def tell(self, pending: Pending, message: m._Message) -> None:
        """Send a message to whoever has the call."""


class Stream:
    """The values that have arrived and were not taken, behind them the promise of the next one.

    The next value's object exists before the value does, so waiting for it is waiting for an object like any other.
    A run after a crash makes the same values again: those that have arrived keep their objects. So does a run for the
    sake of values that were lost, which ends as soon as they are there, if it was for them alone.

    Attributes:
        arrived: how many values there were so far.
        taken: how many of them were taken.
        outside: which of them lie outside this process's memory and are still referenced, with their places.
        interrupted: whether the run under way was ended since another one is to make lost values again.
    """

    __slots__ = (
        "_calls",
        "_client",
        "_completed",
        "_ended",
        "_lost",
        "_pending",
        "_promises",
        "_site",
        "_window",
        "arrived",
        "interrupted",
        "outside",
        "taken",
    )

    def __init__(self, client: Client, pending: Pending, completed: ObjectRef, calls: Calls, window: int) -> None:
        self._completed: ObjectRef | None = completed
        self._client, self._pending, self._calls = client, pending, calls
        self._window = window
        self._site = client.sites.get(completed.id) if client.sites is not None else None
        self._promises: deque[ObjectRef] = deque()
        self.taken = 0
        self._ended = False
        self.arrived = 0
        self.outside: dict[m.ObjectId, int] = {}
        self._lost: dict[int, m.ObjectId] = {}
        self.interrupted = False
        self._promise()

    def _promise(self) -> None:
        # Made in whichever thread reads, for the line of the user's that made the call.
        self._promises.append(self._client.new_ref(self._client.new_ids(1)[0], self._site))

    # Events, under the lock -------------------------------------------------------------------------------------

    def begin(self, told: m.CallExtras) -> None:
        """Event: a run is about to begin; say which values it is to make."""
        told.skip, told.taken, told.missing = self.arrived, self.taken, sorted(self._missing())
        self.interrupted = False

    def on_item(self, index: int, value: m.Value, by: bytes | None) -> None:
        """Event: a value has come."""
        lost = self._lost.pop(index, None)
        if lost is not None:
            self._client.fulfil(lost, value, by)
            self._stop_if_unwanted()
        elif index == self.arrived and self._goes_on:
            self._arrive(value, by)
        else:  # it came in an earlier attempt, or nobody wants it
            self._client.adopt_all(value, by)
            self._client.objects.discard(value)

    def _arrive(self, value: m.Value, by: bytes | None) -> None:
        promised = self._promises[-1]
        index, self.arrived = self.arrived, self.arrived + 1
        self._promise()  # first: whoever waits for the value may take it at once
        self._client.fulfil(promised.id, value, by)
        if spans_of(value) and promised.id in self._client.objects.records:
            self.outside[promised.id] = index
            self._client.on_gone[promised.id] = partial(self._on_gone, promised.id)
            self._client.recovery.yielded(self._pending, promised.id)

    def _on_gone(self, object_id: m.ObjectId) -> None:
        self._lost.pop(self.outside.pop(object_id), None)
        self._stop_if_unwanted()

    def _stop_if_unwanted(self) -> None:
        pending = self._pending
        if pending.task not in self._client.calls or not self.is_unwanted:
            return
        if self._calls.withdraw(pending):
            finish(self._client, pending, [cancelled(pending)])
        else:
            self._calls.tell(pending, m.StopStream(pending.task))

    def finish(self, failure: m.Value | None) -> None:
        """Event: the task has ended, perhaps with an exception, which is the last value then."""
        for object_id in self._missing().values():
            self._client.fulfil(object_id, failure or self._not_made(object_id))
        self._lost.clear()
        if self._goes_on:
            if failure is not None:
                self._arrive(failure, None)
            self._ended = True
            self._client.fulfil(self._promises[-1].id, m.Value(b""))  # who waits for a value finds that there is none

    def _not_made(self, object_id: m.ObjectId) -> m.Value:
        if self._pending.cancelled:
            return cancelled(self._pending)
        error = ObjectReconstructionFailedError(
            f"object {short(object_id)} is lost, and {self._pending.name} has not yielded it when it was run again: it "
            "must yield the same values each time"
        )
        return m.Value(pack_error(error), failed=True)

    def lost(self, object_id: m.ObjectId) -> bool:
        """Event: a value is to be made again. Return whether the run under way, or one that is to begin, will do it."""
        index = self.outside[object_id]
        if index in self._lost:
            return True
        self._lost[index] = object_id
        return self.interrupted or not self._calls.has_sent(self._pending)

    def interrupt(self) -> None:
        """End the run under way; another one makes again what is lost."""
        self.interrupted = True
        self._calls.tell(self._pending, m.StopStream(self._pending.task))

    @property
    def _goes_on(self) -> bool:
        return bool(self._promises) and not self._ended

    @property
    def is_unwanted(self) -> bool:
        """Whether no value of another run is wanted."""
        return not self._goes_on and not self._missing()

    @property
    def promised(self) -> list[m.ObjectId]:
        """The objects that the call is to give values: the next one, and those that were lost and are wanted."""
        return [*([self._promises[-1].id] if self._goes_on else ()), *self._missing().values()]

    def _missing(self) -> dict[int, m.ObjectId]:
        """Return the values that were lost and are wanted, by their places."""
        found = {index: self._client.objects.records.get(object_id) for index, object_id in self._lost.items()}
        return {index: self._lost[index] for index, record in found.items() if record and record.value is None}

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

    def is_finished(self) -> bool:
        """Whether the task has ended and all its values are taken."""
        return self.head() is None

    def completed(self) -> ObjectRef:
        """Return the reference of the task's end."""
        assert self._completed is not None, "somebody has the generator"
        return self._completed

    def cancel(self, force: bool, recursive: bool) -> None:
        """Cancel the task."""
        current_engine().cancel(self.completed(), force, recursive)

    def close(self) -> None:
        """Drop what was not taken, and have no more made."""
        with self._client.lock:
            self._promises.clear()
            self._stop_if_unwanted()

    def on_dropped(self) -> None:
        """Event: the last reference to the generator is gone; its values may live on, and the call that makes them."""
        self.close()
        self._completed = None


def open_stream(client: Client, pending: Pending, completed: ObjectRef, calls: Calls) -> ObjectRefGenerator:
    """Give a call a stream; return the generator, which closes the stream with its last reference."""
    extras = pending.extend()
    stream = extras.stream = Stream(client, pending, completed, calls, extras.told.window if extras.told else 0)
    handle = client.new_ref(client.new_ids(1)[0])
    client.on_gone[handle.id] = stream.on_dropped
    return ObjectRefGenerator(stream, handle)
