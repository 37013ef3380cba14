"""The calls of this process that have not ended: their arguments awaited, their results stored."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...failure import type_of_failure
from ...generators import ObjectRefGenerator
from ...introspection.events import ENDED
from ...refs import ObjectRef
from ..protocol import messages as m
from ..protocol.connection import Connection
from .failures import arguments_lost, cancelled
from .links import Links
from .pending import PendingCall
from .recovery import Recovery
from .streams import Stream
from .values import Values


class Calls:
    """All calls that this process has made and that have not ended, of functions and of methods.

    Attributes:
        open: the calls, by task.
        recovery: makes lost arguments and results again.
    """

    def __init__(self, links: Links, values: Values, recovery: Recovery) -> None:
        self._links, self._values, self.recovery = links, values, recovery
        self._records = values.objects.records
        self.open: dict[bytes, PendingCall] = {}

    # Messages of the processes that run them --------------------------------------------------------------------

    def on_reply(self, peer: Connection, message: m.Reply) -> None:
        """Event: a call has ended."""
        pending = self.open.get(message.task)
        if pending is None:
            self._values.discard(message.values, peer.peer)
        else:
            pending.sender.on_reply(peer, pending, message)

    def on_try_again(self, peer: Connection, message: m.TryAgain) -> None:
        """Event: a call has raised an exception after which it is to be made again."""
        pending = self.open.get(message.task)
        if pending is not None:
            pending.sender.on_try_again(pending, message.failure)

    def on_item(self, peer: Connection, message: m.Item) -> None:
        """Event: a call has yielded a value."""
        pending = self.open.get(message.task)
        if pending is not None and pending.stream is not None:
            pending.stream.on_item(message.index, message.value, peer.peer)
        else:
            self._values.discard([message.value], peer.peer)

    # Arguments --------------------------------------------------------------------------------------------------

    def await_arguments(self, pending: PendingCall, then: Callable[[], None]) -> bool:
        """Call `then` once all arguments that were references have values; False if they have them now."""

        def arrived() -> None:
            pending.missing -= 1
            if pending.missing == 0:
                then()

        # Counted one up, so that nothing happens before all have been looked at.
        pending.missing = 1
        for ref in pending.slots:
            pending.missing += 1
            if self._values.await_value(ref, arrived).value is not None:
                pending.missing -= 1
        pending.missing -= 1
        return pending.missing > 0

    def failed_argument(self, pending: PendingCall) -> m.Value | None:
        """Return the first argument that is a failure: the call fails with it."""
        for ref in pending.slots:
            record = self._records[ref.id]
            if record.value is not None and record.value.failed:
                return self._values.objects.read_failure(record)
        return None

    def lacks_arguments(self, pending: PendingCall) -> bool:
        """Whether an argument that was there has been found to be lost or elsewhere since, and is awaited again."""
        return any(self._records[ref.id].value is None for ref in pending.slots)

    def arguments_for(self, process: bytes, pending: PendingCall) -> list[m.Value]:
        """Return the values that replace references, lent to the process that the call is about to be sent to."""
        values = []
        for ref in pending.slots:
            value = self._records[ref.id].value
            assert value is not None
            self._values.objects.use((ref.id,))
            self._values.lend_all(value, process)
            values.append(value)
        self._values.lend_all(pending.arguments, process)
        return values

    def make_arguments_again(self, pending: PendingCall, span: m.Span) -> bool:
        """Make the arguments again that lie in a lost block; False if that cannot be done, and the call has failed."""
        if self.recovery.lost_argument(pending, span):
            return True
        self.fail(pending, arguments_lost(pending.name))
        return False

    # The end ----------------------------------------------------------------------------------------------------

    def finish(
        self, pending: PendingCall, values: list[m.Value], by: bytes | None = None, seconds: float = 0.0
    ) -> None:
        """Store what a call has returned, sent `by` a process that ran it so long; let go of what it kept."""
        self.open.pop(pending.task, None)
        if pending.extras is not None:
            values = pending.extras.finish(pending, values)
        now = time.monotonic()
        outside = False
        for object_id, value in zip(pending.returns, values, strict=False):
            self._values.fulfil(object_id, value, by)
            if value.buffers or type(value.stream) is m.Span:
                outside = True
        # After the values are stored: whatever goes wrong with a note, no thread waits for ever.
        if pending.actor is None or pending.is_method:  # a constructor has not ended when it is no longer needed
            self._note_end(pending, values, by, now, seconds)
        if outside or pending.task in self.recovery.lineage.tasks:
            self.recovery.ended(pending)
            return
        if pending.arguments.buffers or type(pending.arguments.stream) is m.Span:
            self._values.objects.discard(pending.arguments)
        pending.keeps = pending.slots = []

    def fail(self, pending: PendingCall, failure: m.Value) -> None:
        """End a call with a failure."""
        self.finish(pending, [failure] * len(pending.returns))

    def cancel(self, pending: PendingCall) -> None:
        """End a call that is not wanted any more."""
        self.fail(pending, cancelled(pending.name, pending.task))

    def give_up(self, pending: PendingCall, failure: m.Value) -> None:
        """End a call that has failed and is not made again, or was cancelled meanwhile."""
        if pending.cancelled:
            self.cancel(pending)
        else:
            self.fail(pending, failure)

    def _note_end(  # made for each call: names cost time
        self, pending: PendingCall, values: list[m.Value], by: bytes | None, now: float, seconds: float
    ) -> None:
        actor = pending.actor
        error = ""
        if values and values[-1].failed:
            assert isinstance(values[-1].stream, bytes)
            error = type_of_failure(values[-1].stream)
        what = ("", pending.name, b"") if actor is None else (actor.name, pending.name, actor.key)
        times = (pending.submitted, pending.sent, seconds)
        self._links.note((now, ENDED, pending.task, (*what, by, *times, len(pending.returns), error)))

    # Streams ----------------------------------------------------------------------------------------------------

    def open_stream(self, pending: PendingCall, completed: ObjectRef) -> ObjectRefGenerator:
        """Give a call a stream; return the generator, which closes the stream with its last reference."""
        extras = pending.extend()
        window = extras.told.window if extras.told else 0
        stream = extras.stream = Stream(self._values, _StreamedCall(self, pending), completed, window)
        handle = self._values.new_ref(self._values.new_ids(1)[0])
        self._values.on_gone[handle.id] = stream.on_dropped
        return ObjectRefGenerator(stream, handle)


class _StreamedCall:
    """A call as its stream sees it."""

    __slots__ = ("_calls", "_pending", "name", "task")

    def __init__(self, calls: Calls, pending: PendingCall) -> None:
        self._calls, self._pending = calls, pending
        self.name, self.task = pending.name, pending.task

    def is_cancelled(self) -> bool:
        return self._pending.cancelled

    def has_sent(self) -> bool:
        return self._pending.sender.has_sent(self._pending)

    def tell(self, message: m.Message) -> None:
        self._pending.sender.tell(self._pending, message)

    def stop(self) -> None:
        pending = self._pending
        if pending.task not in self._calls.open:
            return
        if pending.sender.withdraw(pending):
            self._calls.cancel(pending)
        else:
            pending.sender.tell(pending, m.StopStream(pending.task))

    def yielded(self, object_id: m.ObjectId) -> None:
        self._calls.recovery.yielded(self._pending, object_id)
