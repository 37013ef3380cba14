"""Which tasks must be kept so that lost objects can be made again: a state machine without I/O.

A task whose results lie outside its owner's own memory (in shared memory, on disk, on another node) is kept as long
as one of them is referenced. Its arguments are kept with it: those that can be made again themselves as no more than
a note (`needed`: their value may go, their own task stays), all others as they are. So losing the last of a chain of
results runs again as much of the chain as is gone, and not more.

A generator is kept from its first such value on. If one is lost while it runs, the run may be past it: then it is
stopped, and made again.

Methods are events; what they ask the outside to do is appended to `commands`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Protocol

import msgspec

from ..protocol.messages import ObjectId


class Why(enum.Enum):
    """Why an object cannot be made again."""

    PUT = "it was stored by put"
    NO_RETRIES = "no retries are left"
    METHOD = "an actor's method made it"
    NO_LINEAGE = "an actor's method made it, and the actor keeps no lineage"
    ACTOR_ENDED = "the actor whose method made it has ended"
    CANCELLED = "the generator that yielded it was cancelled"
    EVICTED = "its lineage was dropped"


class Again(Protocol):
    """A call that can be made again."""

    def use_retry(self) -> Why | None:
        """Count that it is made again; return why it cannot be, if so."""

    def lost(self, result: ObjectId) -> bool:
        """Event: a result is to be made again. Return whether the run under way, if there is one, will do it."""


class Resubmit(msgspec.Struct, frozen=True):
    """Make this call again; first hold these arguments, and have those made again whose value is gone."""

    call: Again
    arguments: tuple[ObjectId, ...]


class Interrupt(msgspec.Struct, frozen=True):
    """End the run of this call that is under way, and make it again."""

    call: Again


class Fail(msgspec.Struct, frozen=True):
    """This object will never have a value again."""

    object: ObjectId
    why: Why


class Forget(msgspec.Struct, frozen=True):
    """This call will not be made again: let go of what it kept."""

    call: Again


class Settle(msgspec.Struct, frozen=True):
    """No kept task needs this object any more: forget it if it is not held."""

    object: ObjectId


Command = Resubmit | Interrupt | Fail | Forget | Settle


class _Task(msgspec.Struct, eq=False):
    """One kept task. `results`: those outside that are still known; `arguments`: those that may be gone."""

    key: ObjectId
    call: Again
    results: set[ObjectId]
    arguments: tuple[ObjectId, ...]
    size: int
    running: bool = False


class Lineage:
    """All tasks of one process that may be run again.

    Args:
        most_bytes: how much all of them may keep; what is beyond is forgotten, oldest first.

    Attributes:
        tasks: those that are kept, oldest first.
        makers: the kept task of each object that can be made again.
        reasons: for other objects outside, except those of `put`: why they cannot be.
        needed: for each argument of a kept task whose value may be gone: how many tasks need it.
        size: bytes kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self.commands: deque[Command] = deque()
        self.makers: dict[ObjectId, _Task] = {}
        self.reasons: dict[ObjectId, Why] = {}
        self.needed: dict[ObjectId, int] = {}
        self.size = 0
        self._most_bytes = most_bytes
        self.tasks: dict[ObjectId, _Task] = {}

    def table_size(self) -> int:
        """Return how many entries the tables have together."""
        return len(self.tasks) + len(self.makers) + len(self.needed) + len(self.reasons)

    def can_make(self, object_id: ObjectId) -> bool:
        """Return whether an object can be made again, so that its value need not be kept for a later task's sake."""
        return object_id in self.makers

    def finished(
        self, task: ObjectId, call: Again, results: Iterable[ObjectId], arguments: Iterable[ObjectId], size: int
    ) -> None:
        """Event: a task has ended, for the first time or again, and may be run again.

        Args:
            task: its id.
            call: what makes it again.
            results: what it returned that lies outside this process's memory and is still referenced.
            arguments: those that can be made again; others are the call's own to keep.
            size: bytes that it keeps.
        """
        self._take_out(task)
        kept = _Task(task, call, set(results), tuple(arguments), size)
        if not kept.results:
            self.commands.append(Forget(call))
            return
        self.tasks[task] = kept
        for object_id in kept.results:
            self.makers[object_id] = kept
            self.reasons.pop(object_id, None)
        for object_id in kept.arguments:
            self.needed[object_id] = self.needed.get(object_id, 0) + 1
        self.size += size
        while self.size > self._most_bytes:
            oldest = next((other for other in self.tasks.values() if not other.running), None)
            if oldest is None:
                break
            self._forget(oldest, Why.EVICTED)

    def yielded(self, task: ObjectId, call: Again, result: ObjectId) -> None:
        """Event: a task that goes on has made a result that lies outside, and may be run again."""
        kept = self.tasks.get(task)
        if kept is None:
            kept = self.tasks[task] = _Task(task, call, set(), (), 0)
            kept.running = True
        kept.results.add(result)
        self.makers[result] = kept

    def not_kept(self, task: ObjectId, results: Iterable[ObjectId], why: Why) -> None:
        """Event: a task has ended and must not be run again."""
        self._take_out(task)
        for object_id in results:
            self.reasons[object_id] = why

    def lost(self, object_id: ObjectId) -> None:
        """Event: a value is gone that is needed. Later losses by the same task wait for the same run of it."""
        task = self.makers.get(object_id)
        if task is None:
            self.commands.append(Fail(object_id, self.reasons.get(object_id, Why.PUT)))
            return
        comes = task.call.lost(object_id) or Interrupt(task.call) in self.commands
        if task.running and comes:
            return
        why = task.call.use_retry()
        if why is not None:
            self._forget(task, why)
            self.commands.append(Fail(object_id, why))
        elif task.running:
            self.commands.append(Interrupt(task.call))
        else:
            task.running = True
            arguments, task.arguments = task.arguments, ()
            self.commands.append(Resubmit(task.call, arguments))
            self._release(arguments)

    def dropped(self, object_id: ObjectId) -> None:
        """Event: the last reference to an object is gone."""
        self.reasons.pop(object_id, None)
        task = self.makers.pop(object_id, None)
        if task is not None:
            task.results.discard(object_id)
            if not task.results:
                self._forget(task, None)

    def _take_out(self, task: ObjectId) -> None:
        """Forget the run before this one."""
        before = self.tasks.pop(task, None)
        if before is not None:
            self.size -= before.size
            for object_id in before.results:
                del self.makers[object_id]
            self._release(before.arguments)

    def _forget(self, task: _Task, why: Why | None) -> None:
        if why is not None:
            self.reasons.update(dict.fromkeys(task.results, why))
        self._take_out(task.key)
        if not task.running:  # else it ends like any other call
            self.commands.append(Forget(task.call))

    def _release(self, arguments: tuple[ObjectId, ...]) -> None:
        for object_id in arguments:
            self.needed[object_id] -= 1
            if not self.needed[object_id]:
                del self.needed[object_id]
                self.commands.append(Settle(object_id))
