"""A call that was made and has not ended: what tasks and calls of actors' methods have in common."""

from __future__ import annotations

import time
from typing import Any

from ..engine import Function
from ..options import MethodOptions
from ..refs import ObjectRef
from .messages import ObjectId, Value

_MOST_REMEMBERED = 256


def remember(table: dict[bytes, Any], key: bytes, what: Any) -> None:
    """Add to a table that forgets the oldest entry when it is full.

    A program that makes functions in a loop must not fill the memory of all its processes. Both ends of a connection
    note its functions in the same order, so the sender knows without asking which ones the receiver still has.
    """
    if len(table) >= _MOST_REMEMBERED:
        del table[next(iter(table))]
    table[key] = what


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
        options: of a call of a method.
        kind: for a task: those that ask for the same.
        link: for a call of a method, or a constructor: this process's line to the actor.
        submitted, sent: when `.remote()` was called and when it last went to a process (0: not yet), monotonic seconds.
    """

    __slots__ = (
        "arguments",
        "function",
        "keeps",
        "kind",
        "link",
        "missing",
        "name",
        "options",
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
        self.options: MethodOptions | None = None
        self.kind: Any = None
        self.link: Any = None
        self.submitted = time.monotonic()
        self.sent = 0.0

    def use_retry(self) -> bool:
        """Return whether it may be sent again after a crash, and count that."""
        if self.retries == 0:
            return False
        if self.retries > 0:
            self.retries -= 1
        return True
