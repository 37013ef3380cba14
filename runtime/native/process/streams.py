"""A stream of values of one task, as its caller sees it: promised objects, in order, which the values fulfil."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Protocol

from ...core import generators
from ...core.engine import current_engine
from ...core.refs import ObjectRef, short
from ...exceptions import ObjectReconstructionFailedError
from ..protocol import messages as m
from .failures import cancelled, failure
from .objects import spans_of
from .values import Values


class StreamedCall(Protocol):
    """The call that makes the values."""

    name: str
    task: m.ObjectId

    @property
    def cancelled(self) -> bool:
        """Whether the call is not wanted any more."""

    def has_sent(self) -> bool:
        """Whether the call has been sent."""

    def tell(self, message: m.Message) -> None:
        """Send a message to the process that has the call, if one has."""

    def stop(self) -> None:
        """Stop the producer, if the call has not ended."""

    def yielded(self, object_id: m.ObjectId) -> None:
        """Event: a value of the call lies outside this process's memory."""


class Stream(generators.Stream):
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

    def __init__(self, values: Values, call: StreamedCall, completed: ObjectRef, window: int) -> None:
        self._completed: ObjectRef | None = completed
        self._values, self._call = values, call
        self._window = window
        self._site = values.site_of(completed.id) or None
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
        self._promises.append(self._values.new_ref(self._values.new_ids(1)[0], self._site))

    # Events, under the lock -------------------------------------------------------------------------------------

    def begin(self, told: m.CallExtras) -> None:
        """Event: a run is about to begin; say which values it is to make."""
        told.skip, told.taken, told.missing = self.arrived, self.taken, sorted(self._missing())
        self.interrupted = False

    def on_item(self, index: int, value: m.Value, by: bytes | None) -> None:
        """Event: a value has come."""
        lost = self._lost.pop(index, None)
        if lost is not None:
            self._values.fulfil(lost, value, by)
            self._stop_if_unwanted()
        elif index == self.arrived and self._goes_on:
            self._arrive(value, by)
        else:  # it came in an earlier attempt, or is not wanted
            self._values.discard([value], by)

    def _arrive(self, value: m.Value, by: bytes | None) -> None:
        promised = self._promises[-1]
        index, self.arrived = self.arrived, self.arrived + 1
        self._promise()  # first: a thread that waits for the value may take it at once
        self._values.fulfil(promised.id, value, by)
        if spans_of(value) and promised.id in self._values.objects.records:
            self.outside[promised.id] = index
            self._values.on_gone[promised.id] = partial(self._on_gone, promised.id)
            self._call.yielded(promised.id)

    def _on_gone(self, object_id: m.ObjectId) -> None:
        self._lost.pop(self.outside.pop(object_id), None)
        self._stop_if_unwanted()

    def _stop_if_unwanted(self) -> None:
        if self.is_unwanted:
            self._call.stop()

    def finish(self, failed: m.Value | None) -> None:
        """Event: the task has ended, perhaps with an exception, which is the last value then."""
        for object_id in self._missing().values():
            self._values.fulfil(object_id, failed or self._not_made(object_id))
        self._lost.clear()
        if self._goes_on:
            if failed is not None:
                self._arrive(failed, None)
            self._ended = True
            self._values.fulfil(self._promises[-1].id, m.Value(b""))  # a thread that waits finds that there is none

    def _not_made(self, object_id: m.ObjectId) -> m.Value:
        if self._call.cancelled:
            return cancelled(self._call.name, self._call.task)
        error = ObjectReconstructionFailedError(
            f"object {short(object_id)} is lost, and {self._call.name} has not yielded it when it was run again: it "
            "must yield the same values each time"
        )
        return failure(error)

    def lost(self, object_id: m.ObjectId) -> bool:
        """Event: a value is to be made again. Return whether the run under way, or one that is to begin, will do it."""
        index = self.outside[object_id]
        if index in self._lost:
            return True
        self._lost[index] = object_id
        return self.interrupted or not self._call.has_sent()

    def interrupt(self) -> None:
        """End the run under way; another one makes again what is lost."""
        self.interrupted = True
        self._call.tell(m.StopStream(self._call.task))

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
        found = {index: self._values.objects.records.get(object_id) for index, object_id in self._lost.items()}
        return {index: self._lost[index] for index, record in found.items() if record and record.value is None}

    # For the generator, in any thread ---------------------------------------------------------------------------

    def head(self) -> ObjectRef | None:
        with self._values.lock:
            return None if not self._promises or (self._ended and len(self._promises) == 1) else self._promises[0]

    def take(self, head: ObjectRef) -> bool:
        with self._values.lock:
            if self.head() is not head:
                return False
            self._promises.popleft()
            self.taken += 1
            if self._window and not self._ended:
                self._call.tell(m.Taken(self._call.task, self.taken))
            return True

    def is_finished(self) -> bool:
        return self.head() is None

    def completed(self) -> ObjectRef:
        """Return the reference of the task's end."""
        assert self._completed is not None, "the generator is still referenced"
        return self._completed

    def cancel(self, force: bool, recursive: bool) -> None:
        current_engine().cancel(self.completed(), force, recursive)

    def close(self) -> None:
        with self._values.lock:
            self._promises.clear()
            self._stop_if_unwanted()

    def on_dropped(self) -> None:
        """Event: the last reference to the generator is gone; its values may live on, and the call that makes them."""
        self.close()
        self._completed = None
