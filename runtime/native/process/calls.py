"""A call that was made and has not ended: what tasks and calls of actors' methods have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ...engine import Function
from ...exceptions import ObjectLostError, TaskCancelledError
from ...failure import add_to_where, pack_error, type_of_failure
from ...introspection.story_events import ENDED
from ...options import STREAMING, MethodOptions, TaskOptions
from ...refs import ObjectRef, short
from ..protocol.messages import Call, CallExtras, ObjectId, Push, Span, Value

if TYPE_CHECKING:
    from .client import Client
    from .streams import Stream

_MOST_REMEMBERED = 256

#: The task that this code runs for, so that what it submits can be cancelled with it.
parent: ContextVar[ObjectId | None] = ContextVar("shoal_task", default=None)


def remember(table: dict[bytes, Any], key: bytes, what: Any) -> None:
    """Add to a table that forgets the oldest entry when it is full.

    A program that makes functions in a loop must not fill the memory of all its processes. Both ends of a connection
    note its functions in the same order, so the sender knows without asking which ones the receiver still has.
    """
    if len(table) >= _MOST_REMEMBERED:
        del table[next(iter(table))]
    table[key] = what


class Extras:
    """What few calls need beyond the rest.

    Attributes:
        told: what who runs the call must know.
        stream: where its values go one by one.
        max_calls: a worker ends after so many tasks of this function; 0: never.
        attempt: which attempt this is, from 1.
        cancelled: it is not wanted any more, and not to be sent (again).
    """

    __slots__ = ("attempt", "cancelled", "max_calls", "stream", "told")

    def __init__(self, told: CallExtras | None = None, max_calls: int = 0) -> None:
        self.told = told
        self.stream: Stream | None = None
        self.max_calls = max_calls
        self.attempt = 1
        self.cancelled = False

    @classmethod
    def of_task(cls, options: TaskOptions) -> Extras:
        """Return what a task's options ask for."""
        return cls(CallExtras(retry=options.retry, window=options.generator_backpressure), options.max_calls)

    @classmethod
    def of_method(cls, options: MethodOptions) -> Extras:
        """Return what a method's options ask for."""
        name, group = options.name, options.concurrency_group
        return cls(CallExtras(name, group, options.retry, window=options.generator_backpressure))

    def apply(self, message: Push | Call) -> None:
        """Copy these settings into the outgoing message."""
        message.extras = self.told
        if self.stream is not None and self.told is not None:
            message.num_returns = STREAMING
            self.stream.begin(self.told)

    def finish(self, pending: Pending, values: list[Value]) -> list[Value]:
        """The call has ended: return its values, failures with the number of the attempt; end its stream."""
        attempts = pending.attempts()
        if attempts:
            values = [_with_attempts(value, attempts) for value in values]
        if self.stream is not None:
            self.stream.finish(values[0] if values[0].failed else None)
        return values


class Pending:
    """One call, from `.remote()` to its reply.

    Attributes:
        task: its id, that of its first return value.
        name: function or ``Class.method``, for messages.
        function: what a task runs; None for a call of a method.
        returns: ids of its return values.
        arguments: the serialised arguments.
        slots: references among the arguments, replaced by their values before the call is sent.
        keeps: references that must live until the reply: slots, those inside arguments, the actor's lifetime.
        missing: how many slots have no value yet.
        retries: how many times it may be sent again after a crash or a loss; -1: without limit.
        link: for a call of a method, or a constructor: this process's line to the actor.
        submitted, sent: when `.remote()` was called and when it last went to a process (0: not yet), monotonic seconds.
        kind: for a task: those that ask for the same, and the queue of them.
        parent: the task of this process that made the call, if one did.
        lease: for a task: the worker that it was pushed to, while it is there.
        extras: what few calls need; None for the others.
    """

    __slots__ = (
        "arguments",
        "extras",
        "function",
        "keeps",
        "kind",
        "lease",
        "link",
        "missing",
        "name",
        "parent",
        "retries",
        "returns",
        "sent",
        "slots",
        "submitted",
        "task",
    )

    def __init__(  # noqa: PLR0917  # made for each call: names cost time
        self,
        name: str,
        function: Function | None,
        returns: list[ObjectId],
        arguments: Value,
        slots: list[ObjectRef],
        keeps: list[ObjectRef],
        retries: int,
    ) -> None:
        self.task = returns[0]
        self.name = name
        self.function = function
        self.returns = returns
        self.arguments = arguments
        self.slots = slots
        self.keeps = keeps
        self.missing = 0
        self.retries = retries
        self.link: Any = None
        self.submitted = time.monotonic()
        self.sent = 0.0
        self.kind: Any = None
        self.parent = parent.get()
        self.lease: Any = None
        self.extras: Extras | None = None

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
    def cancelled(self) -> bool:
        """Whether it is not wanted any more."""
        extras = self.extras
        return extras is not None and (extras.cancelled or (extras.stream is not None and extras.stream.is_unwanted))

    @property
    def group(self) -> str:
        """The concurrency group that it was made for; "": that of no other."""
        told = None if self.extras is None else self.extras.told
        return (told.concurrency_group if told is not None else None) or ""

    @property
    def stream(self) -> Stream | None:
        """Where its values go one by one."""
        return None if self.extras is None else self.extras.stream

    @property
    def results(self) -> list[ObjectId]:
        """What it has returned, and what it has yielded that lies outside this process's memory."""
        return self.returns if self.stream is None else [*self.returns, *self.stream.outside]

    @property
    def is_interrupted(self) -> bool:
        """Whether its run under way was ended so that another one makes values again."""
        return self.stream is not None and self.stream.interrupted and not self.cancelled

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


def await_slots(client: Client, pending: Pending, then: Callable[[], None]) -> bool:
    """Call `then` once all arguments that were references have values; False if they have them now."""

    def arrived() -> None:
        pending.missing -= 1
        if pending.missing == 0:
            then()

    # Counted one up, so that nothing happens before all have been looked at.
    pending.missing = 1
    for ref in pending.slots:
        pending.missing += 1
        if client.record_of(ref, arrived).value is not None:
            pending.missing -= 1
    pending.missing -= 1
    return pending.missing > 0


def failed_slot(client: Client, pending: Pending) -> Value | None:
    """Return the first argument that is a failure: the call fails with it."""
    for ref in pending.slots:
        record = client.objects.records[ref.id]
        if record.value is not None and record.value.failed:
            return client.objects.read_failure(record)
    return None


def has_lost_slot(client: Client, pending: Pending) -> bool:
    """Return whether an argument that was there has been found to be lost or elsewhere since, and is awaited again."""
    return any(client.objects.records[ref.id].value is None for ref in pending.slots)


def slot_values(client: Client, pending: Pending, to: bytes) -> list[Value]:
    """Return the values that replace references, lent to the process that the call is about to be sent to."""
    values = []
    for ref in pending.slots:
        value = client.objects.records[ref.id].value
        assert value is not None
        client.objects.use((ref.id,))
        client.lend_all(value, to)
        values.append(value)
    client.lend_all(pending.arguments, to)
    return values


def finish(
    client: Client, pending: Pending, values: list[Value], by: bytes | None = None, seconds: float = 0.0
) -> None:
    """A call has ended: store what it returned, sent `by` a process that ran it so long; let go of what it kept."""
    client.calls.pop(pending.task, None)
    if pending.extras is not None:
        values = pending.extras.finish(pending, values)
    now = time.monotonic()
    outside = False
    for object_id, value in zip(pending.returns, values, strict=False):
        client.fulfil(object_id, value, by)
        if value.buffers or type(value.stream) is Span:
            outside = True
    # After the values are stored: whatever goes wrong with a note, nobody waits for ever.
    if pending.link is None or pending.function is None:  # a constructor has not ended when it is no longer needed
        _note_end(client, pending, values, by, now, seconds)
    if outside or pending.task in client.recovery.lineage.tasks:
        client.recovery.ended(pending)
        return
    if pending.arguments.buffers or type(pending.arguments.stream) is Span:
        client.objects.discard(pending.arguments)
    pending.keeps = pending.slots = []


def give_up(client: Client, pending: Pending, failure: Value) -> None:
    """A call has failed and is not made again: it ends with this failure, or was cancelled meanwhile."""
    finish(client, pending, [cancelled(pending) if pending.cancelled else failure] * len(pending.returns))


def _note_end(  # noqa: PLR0917  # made for each call: names cost time
    client: Client, pending: Pending, values: list[Value], by: bytes | None, now: float, seconds: float
) -> None:
    link = pending.link
    error = ""
    if values and values[-1].failed:
        assert isinstance(values[-1].stream, bytes)
        error = type_of_failure(values[-1].stream)
    who = ("", pending.name, b"") if link is None else (link.name, pending.name, link.key)
    times = (pending.submitted, pending.sent, seconds)
    client.note((now, ENDED, pending.task, (*who, by, *times, len(pending.returns), error)))


def again_with_arguments(client: Client, pending: Pending, span: Span) -> bool:
    """Make the arguments again that lie in a lost block; False if that cannot be done, and the call has failed."""
    if client.recovery.lost_argument(pending, span):
        return True
    finish(client, pending, [Value(pack_error(arguments_lost(pending)), failed=True)] * len(pending.returns))
    return False


def arguments_lost(pending: Pending) -> ObjectLostError:
    """Return the error of a call whose own arguments are in a lost block."""
    return ObjectLostError(
        f"{pending.name}: its arguments cannot be read: their block of shared memory is lost. Make the call again, "
        "or pass what a task has returned: that can be made again"
    )


def _with_attempts(value: Value, attempts: str) -> Value:
    if not value.failed:
        return value
    assert isinstance(value.stream, bytes)
    return Value(add_to_where(value.stream, attempts), failed=True)


def cancelled(pending: Pending) -> Value:
    """Return the failure that stands for a call that was cancelled."""
    error = TaskCancelledError(f"{pending.name} ({short(pending.task)}) was cancelled")
    return Value(pack_error(error), failed=True)
