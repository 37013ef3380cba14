"""A call that was made and has not ended: what tasks and calls of actors' methods have in common."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any, Protocol

from ...engine import Function
from ...options import STREAMING, MethodOptions, TaskOptions
from ...refs import ObjectRef
from ..protocol.connection import Connection
from ..protocol.messages import ArgumentLost, Call, CallExtras, Message, ObjectId, Push, Reply, Value
from .failures import with_attempts
from .streams import Stream

#: The task that this code runs for, so that what it submits can be cancelled with it.
parent: ContextVar[ObjectId | None] = ContextVar("shoal_task", default=None)


class Extras:
    """What few calls need beyond the rest.

    Attributes:
        told: what the process that runs the call must know.
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

    def finish(self, pending: PendingCall, values: list[Value]) -> list[Value]:
        """The call has ended: return its values, failures with the number of the attempt; end its stream."""
        attempts = pending.attempts()
        if attempts:
            values = [with_attempts(value, attempts) for value in values]
        if self.stream is not None:
            self.stream.finish(values[0] if values[0].failed else None)
        return values


class Sender(Protocol):
    """What calls wait in and are sent by: `TaskCalls`, or `ActorCalls`."""

    def has_sent(self, pending: PendingCall) -> bool:
        """Whether the call has been sent."""

    def withdraw(self, pending: PendingCall) -> bool:
        """Take a call back; False if it was sent already."""

    def tell(self, pending: PendingCall, message: Message) -> None:
        """Send a message to the process that has the call, if one has."""

    def resubmit(self, pending: PendingCall) -> None:
        """Make a call again, now that it holds its arguments."""

    def on_reply(self, peer: Connection, pending: PendingCall, message: Reply) -> None:
        """Event: the call has ended."""

    def on_try_again(self, pending: PendingCall, failure: Value) -> None:
        """Event: the call has raised an exception after which it is to be made again."""

    def on_argument_lost(self, pending: PendingCall, message: ArgumentLost) -> None:
        """Event: the call could not read an argument and was not run."""


class PendingCall:
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

    __slots__ = (
        "actor",
        "arguments",
        "extras",
        "function",
        "keeps",
        "lease",
        "missing",
        "name",
        "parent",
        "queue",
        "retries",
        "returns",
        "sender",
        "sent",
        "slots",
        "submitted",
        "task",
    )

    def __init__(  # noqa: PLR0917  # made for each call: names cost time
        self,
        sender: Sender,
        name: str,
        function: Function | None,
        returns: list[ObjectId],
        arguments: Value,
        slots: list[ObjectRef],
        keeps: list[ObjectRef],
        retries: int,
    ) -> None:
        self.sender = sender
        self.task = returns[0]
        self.name = name
        self.function = function
        self.returns = returns
        self.arguments = arguments
        self.slots = slots
        self.keeps = keeps
        self.missing = 0
        self.retries = retries
        self.actor: Any = None
        self.submitted = time.monotonic()
        self.sent = 0.0
        self.queue: Any = None
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
    def is_method(self) -> bool:
        """Whether it calls a method of an actor."""
        return self.function is None

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
