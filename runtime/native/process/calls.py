"""The calls of this process that have not ended, of functions and of methods.

`Calls` awaits their arguments and stores their results. In between each waits in, and is sent by, its `Sender`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from msgspec import Struct, field

from ...core.engine import Function
from ...core.generators import ObjectRefGenerator
from ...core.options import STREAMING
from ...core.refs import ObjectRef
from ...core.reports.events import ENDED
from ...core.values.packed_exceptions import type_of_failure
from ..protocol import messages as m
from ..protocol.connection import Connection
from .failures import arguments_lost, cancelled, with_attempts
from .lineage import Lineage
from .links import Links
from .streams import Stream
from .values import Values

#: The task that this code runs for, so that what it submits can be cancelled with it.
parent: ContextVar[m.ObjectId | None] = ContextVar("shoal_task", default=None)


class Extras(Struct, eq=False):
    """What few calls need beyond the rest.

    Attributes:
        told: what the process that runs the call must know.
        stream: where its values go one by one.
        max_calls: a worker ends after so many tasks of this function; 0: never.
        attempt: which attempt this is, from 1.
        cancelled: it is not wanted any more, and not to be sent (again).
    """

    told: m.CallExtras | None = None
    max_calls: int = 0
    stream: Stream | None = None
    attempt: int = 1
    cancelled: bool = False

    def apply(self, message: m.Push | m.Call) -> None:
        """Copy these settings into the outgoing message."""
        message.extras = self.told
        if self.stream is not None and self.told is not None:
            message.num_returns = STREAMING
            self.stream.begin(self.told)

    def finish(self, pending: PendingCall, values: list[m.Value]) -> list[m.Value]:
        """The call has ended: return its values, failures with the number of the attempt; end its stream."""
        attempts = pending.attempts()
        if attempts:
            values = [with_attempts(value, attempts) for value in values]
        if self.stream is not None:
            self.stream.finish(values[0] if values[0].failed else None)
        return values


class Sender(Protocol):
    """What calls wait in and are sent by: `TaskCalls`, or `ActorCalls`."""

    calls: Calls

    def has_sent(self, pending: PendingCall) -> bool:
        """Whether the call has been sent."""

    def withdraw(self, pending: PendingCall) -> bool:
        """Take a call back; False if it was sent already."""

    def tell(self, pending: PendingCall, message: m.Message) -> None:
        """Send a message to the process that has the call, if one has."""

    def resubmit(self, pending: PendingCall) -> None:
        """Make a call again, now that it holds its arguments."""

    def on_reply(self, peer: Connection, pending: PendingCall, message: m.Reply) -> None:
        """Event: the call has ended."""

    def on_try_again(self, pending: PendingCall, failure: m.Value) -> None:
        """Event: the call has raised an exception after which it is to be made again."""

    def on_argument_lost(self, pending: PendingCall, message: m.ArgumentLost) -> None:
        """Event: the call could not read an argument and was not run."""


class Keeper(Protocol):
    """What makes lost arguments and results again: `Recovery`."""

    def ended(self, pending: PendingCall) -> None:
        """A call has ended whose results lie outside this process's memory, or did: keep it if it may run again."""

    def yielded(self, pending: PendingCall, object_id: m.ObjectId) -> None:
        """A generator that goes on has made this value, which lies outside this process's memory."""

    def lost_argument(self, pending: PendingCall, span: m.Span) -> bool:
        """A call was not run since it could not read an argument; False if that cannot be made again."""


class PendingCall(Struct, eq=False):
    """One call, from `.remote()` to its reply.

    Attributes:
        task: its id, that of its first return value.
        sender: what it waits in and is sent by.
        name: function or ``Class.method``, for messages.
        function: what a task runs, or the class of an actor that is to be made; None for a call of a method.
        returns: ids of its return values.
        arguments: the serialised arguments.
        slots: references among the arguments, replaced by their values before the call is sent.
        keeps: references that must live until the reply: slots, those inside arguments, the actor's lifetime.
        missing: how many slots have no value yet.
        retries: how many times it may be sent again after a crash or a loss; -1: without limit.
        actor: for a call of a method, or a constructor: this process's calls to the actor.
        submitted, sent: when `.remote()` was called and when it last went to a process (0: not yet), monotonic seconds.
        queue: for a task: that of all that ask for the same.
        parent: the task of this process that made the call, if one did.
        lease: for a task: the worker that it was pushed to, while it is there.
        extras: what few calls need; None for the others.
    """

    task: m.ObjectId
    sender: Sender
    name: str
    function: Function | None
    returns: list[m.ObjectId]
    arguments: m.Value
    slots: list[ObjectRef]
    keeps: list[ObjectRef]
    retries: int
    missing: int = 0
    actor: Any = None
    submitted: float = field(default_factory=time.monotonic)
    sent: float = 0.0
    queue: Any = None
    parent: m.ObjectId | None = field(default_factory=parent.get)
    lease: Any = None
    extras: Extras | None = None

    def attempts(self) -> str:
        """Return the words that say which attempt this was; "" if it is the only one."""
        if self.extras is None or self.extras.attempt == 1:
            return ""
        most = "" if self.retries < 0 else f" of {self.extras.attempt + self.retries}"
        return f", attempt {self.extras.attempt}{most}"

    def extend(self) -> Extras:
        """Return its extras; it has some from here on."""
        if self.extras is None:
            self.extras = Extras()
        return self.extras

    @property
    def is_method(self) -> bool:
        """Whether it calls a method of an actor."""
        return self.function is None

    @property
    def cancelled(self) -> bool:
        """Whether it is not wanted any more."""
        extras = self.extras
        return extras is not None and (extras.cancelled or (extras.stream is not None and extras.stream.is_unwanted))

    @property
    def stream(self) -> Stream | None:
        """Where its values go one by one."""
        return None if self.extras is None else self.extras.stream

    @property
    def is_interrupted(self) -> bool:
        """Whether its run under way was ended so that another one makes values again."""
        extras = self.extras  # asked of each call that has ended
        return extras is not None and extras.stream is not None and extras.stream.interrupted and not self.cancelled

    def use_retry(self) -> bool:
        """Return whether it may be sent again after a crash, and count that."""
        if self.is_interrupted:
            return True  # that was counted when it was interrupted
        if self.retries == 0 or self.cancelled:
            return False
        if self.retries > 0:
            self.retries -= 1
        self.extend().attempt += 1
        return True

    def has_sent(self) -> bool:
        """Whether it has been sent."""
        return self.sender.has_sent(self)

    def tell(self, message: m.Message) -> None:
        """Send a message to the process that has it, if one has."""
        self.sender.tell(self, message)

    def stop(self) -> None:
        """Stop it, if it has not ended."""
        if self.task in self.sender.calls.open:
            self.sender.calls.take_back(self, m.StopStream(self.task))

    def yielded(self, object_id: m.ObjectId) -> None:
        """Event: a value of it lies outside this process's memory."""
        self.sender.calls.recovery.yielded(self, object_id)


class Calls:
    """All calls that this process has made and that have not ended, of functions and of methods.

    Attributes:
        open: the calls, by task.
        recovery: makes lost arguments and results again.
    """

    def __init__(self, links: Links, values: Values, lineage: Lineage, recovery: Keeper) -> None:
        self._links, self._values, self._lineage, self.recovery = links, values, lineage, recovery
        self._records = values.objects.records
        self.open: dict[bytes, PendingCall] = {}

    # Messages of the processes that run them --------------------------------------------------------------------

    def on_reply(self, peer: Connection, message: m.Reply) -> None:
        pending = self.open.get(message.task)
        if pending is None:
            self._values.discard(message.values, peer.peer)
        else:
            pending.sender.on_reply(peer, pending, message)

    def on_try_again(self, peer: Connection, message: m.TryAgain) -> None:
        pending = self.open.get(message.task)
        if pending is not None:
            pending.sender.on_try_again(pending, message.failure)

    def on_item(self, peer: Connection, message: m.Item) -> None:
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
        if outside or pending.task in self._lineage.tasks:
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

    def take_back(self, pending: PendingCall, message: m.Message) -> bool:
        """End a call that is not wanted any more; if it was sent, say so to whoever has it, and return False."""
        if pending.sender.withdraw(pending):
            self.cancel(pending)
            return True
        pending.tell(message)
        return False

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
        stream = extras.stream = Stream(self._values, pending, completed, window)
        handle = self._values.new_ref(self._values.new_ids(1)[0])
        self._values.on_gone[handle.id] = stream.on_dropped
        return ObjectRefGenerator(stream, handle)
