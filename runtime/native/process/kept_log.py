"""For the owner of actors that come back with their state: it keeps their logs, and all that is needed to replay them.

Arguments of this process's own calls are kept as they are; those of other processes' calls arrive as copies that this
process owns, so that they do not depend on a caller that may be gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from ...core.actors.log import ActorLog
from ...core.refs import ObjectRef
from ..protocol import messages as m
from ..protocol.connection import Connection
from .calls import Calls, PendingCall
from .objects import spans_of
from .values import Values


class _Kept(Struct, eq=False):
    """Values of another process's that this one keeps, and the references inside."""

    values: list[m.Value]
    refs: list[ObjectRef]


class _Foreign(_Kept, eq=False):
    """Another process's call, whose arguments the values are."""

    call: m.Call


class KeptLog:
    """The log of one actor, and what it holds.

    Args:
        every: calls between two checkpoints.
    """

    def __init__(self, values: Values, calls: Calls, every: int) -> None:
        self._values, self._calls, self._every = values, calls, every
        self._log: ActorLog[PendingCall | _Foreign, _Kept] = ActorLog()

    # Events -----------------------------------------------------------------------------------------------------

    def ran(self, pending: PendingCall) -> None:
        """A call of this process has run; take over what it holds."""
        lifetime = pending.actor.lifetime  # the log must not keep the actor alive
        kept = PendingCall(
            pending.task,
            pending.sender,
            pending.name,
            None,
            pending.returns,
            pending.arguments,
            pending.slots,
            [ref for ref in pending.keeps if ref.id != lifetime],
            0,
        )
        kept.extras = pending.extras
        pending.arguments = m.Value(b"")
        self._log.ran(pending.task, kept, in_doubt=False)

    def logged(self, actor: Connection, message: m.Logged) -> None:
        """A call of another process has run."""
        call = message.call
        values = [call.arguments, *call.slots]
        foreign = _Foreign(values, self._values.adopt_all(values, actor.peer), call)
        self._log.ran(call.task, foreign, in_doubt=True)

    def delivered(self, actor: Connection, message: m.Delivered) -> None:
        """Another process has the answer that was in doubt."""
        self._log.delivered(message.task)

    def checkpointed(self, actor: Connection, message: m.Checkpointed) -> None:
        """The actor's state has arrived."""
        before = self._log.state
        state = _Kept([message.state], self._values.adopt_all([message.state], actor.peer))
        for call in self._log.checkpointed(state):
            self._let_go(call)
        if before is not None:
            self._let_go(before)

    def caller_died(self, process: bytes) -> None:
        """A process is gone, and asks for no answer."""
        self._log.caller_died(process)

    def spans(self) -> Iterator[m.Span]:
        """Yield the blocks of other processes' making that are needed to bring the actor back."""
        kept = [entry.call for entry in self._log.entries if isinstance(entry.call, _Foreign)]
        for item in (*kept, *([] if self._log.state is None else [self._log.state])):
            for value in item.values:
                yield from spans_of(value)

    def end(self) -> None:
        """The actor will not come back."""
        state = self._log.state
        for kept in (*self._log.checkpointed(_Kept([], [])), *([] if state is None else [state])):
            self._let_go(kept)

    def _let_go(self, kept: PendingCall | _Kept) -> None:
        if isinstance(kept, PendingCall):
            self._values.objects.discard(kept.arguments)
            kept.keeps = kept.slots = []
            return
        for value in kept.values:
            self._values.objects.discard(value)
        kept.refs = []

    # Bringing it back -------------------------------------------------------------------------------------------

    def own_calls(self) -> list[PendingCall]:
        """Return the calls of this process that are to run again: their arguments must be there first."""
        return [entry.call for entry in self._log.entries if isinstance(entry.call, PendingCall)]

    def restoration(self, process: bytes) -> m.Restoration:
        """Return what makes the actor in a new process, lent to it."""
        log = self._log
        log.restarts()
        entries = []
        for entry in log.entries:
            if isinstance(entry.call, PendingCall):
                pending = entry.call
                extras = None if pending.extras is None else pending.extras.told
                slots = self._calls.arguments_for(process, pending)
                call = m.Call(entry.task, pending.name, pending.arguments, slots, len(pending.returns), extras)
            else:
                call = entry.call.call
                for value in entry.call.values:
                    self._values.lend_all(value, process)
            entries.append(m.LogEntry(call, entry.in_doubt))
        state = None if log.state is None else log.state.values[0]
        if state is not None:
            self._values.lend_all(state, process)
        return m.Restoration(self._every, state, entries)
