"""What every place for the calls of a concurrent actor can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ...remote import method_table
from ..protocol import messages as m
from .executor import Executor, Item

DEFAULT_GROUP = ""


class Place(ABC):
    """Where an actor's calls run. Each concurrency group has a limit of calls that run at the same time.

    Args:
        executor: runs the calls.
        cls: the actor's class; its methods may name their groups.
    """

    def __init__(self, executor: Executor, cls: type) -> None:
        self._executor = executor
        table = method_table(cls)
        self._groups = {name: o.concurrency_group for name, o in table.items() if o.concurrency_group is not None}

    def group_of(self, message: m.Call) -> str:
        """Return the concurrency group that a call belongs to."""
        if message.extras is not None and message.extras.concurrency_group is not None:
            return message.extras.concurrency_group
        return self._groups.get(message.method, DEFAULT_GROUP)

    @abstractmethod
    def begin(self, item: Item) -> None:
        """Run a call as soon as its group has room; from the thread that reads, never blocks."""

    @abstractmethod
    def cancel(self, message: m.CancelTask) -> None:
        """Cancel a call that has not begun, or that awaits something; under the lock, in the thread that reads."""

    @abstractmethod
    def apply(self, make: Callable[[], Any]) -> Any:
        """Call the constructor where it belongs; from the main thread."""

    def on_block(self) -> None:  # noqa: B027  # nothing to do in threads
        """Event: a `get` or `wait` is about to block its thread."""

    @abstractmethod
    def finish(self, leaving: bool) -> None:
        """Wait for what runs, and begin nothing more; from the main thread.

        Args:
            leaving: a call has asked for the actor's end: coroutines are cancelled after a moment.
        """
