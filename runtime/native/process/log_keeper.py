"""For the owner of actors that come back with their state: it keeps their logs, and all that is needed to replay them.

Arguments of this process's own calls are kept as they are; those of other processes' calls arrive as copies that this
process owns, so that they do not depend on a caller that may be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ...refs import ObjectRef
from ..protocol import messages as m
from ..protocol.connection import Connection
from .actor_log import ActorLog
from .calls import Pending
from .client import Client
from .objects import spans_of
from .task_calls import slot_values

if TYPE_CHECKING:
    from .actor_links import Link


class _Kept:
    """Values of another process's that this one keeps, and the references inside."""

    __slots__ = ("refs", "values")

    def __init__(self, values: list[m.Value], refs: list[ObjectRef]) -> None:
        self.values, self.refs = values, refs


class _Foreign(_Kept):
    """Another process's call."""

    __slots__ = ("call",)

    def __init__(self, call: m.Call, refs: list[ObjectRef]) -> None:
        super().__init__([call.arguments, *call.slots], refs)
        self.call = call


class KeptLog:
    """The log of one actor, and what it holds.

    Args:
        client: this process's objects.
        every: calls between two checkpoints.
    """

    def __init__(self, client: Client, every: int) -> None:
        self._client, self._every = client, every
        self._log: ActorLog[Pending | _Foreign, _Kept] = ActorLog()

    # Events -----------------------------------------------------------------------------------------------------

    def ran(self, pending: Pending) -> None:
        """A call of this process has run; take over what it holds."""
        lifetime = pending.link.lifetime  # the log must not keep the actor alive
        kept = Pending(
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
        foreign = _Foreign(call, self._adopt(actor, [call.arguments, *call.slots]))
        self._log.ran(call.task, foreign, in_doubt=True)

    def delivered(self, actor: Connection, message: m.Delivered) -> None:
        """Another process has the answer that was in doubt."""
        self._log.delivered(message.task)

    def checkpointed(self, actor: Connection, message: m.Checkpointed) -> None:
        """The actor's state has arrived."""
        before = self._log.state
        state = _Kept([message.state], self._adopt(actor, [message.state]))
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

    def _adopt(self, actor: Connection, values: Iterable[m.Value]) -> list[ObjectRef]:
        return [ref for value in values for ref in self._client.adopt_all(value, actor.peer) or ()]

    def _let_go(self, kept: Pending | _Kept) -> None:
        if isinstance(kept, Pending):
            self._client.objects.discard(kept.arguments)
            kept.keeps = kept.slots = []
            return
        for value in kept.values:
            self._client.objects.discard(value)
        kept.refs = []

    # Bringing it back -------------------------------------------------------------------------------------------

    def own_calls(self) -> list[Pending]:
        """Return the calls of this process that are to run again: their arguments must be there first."""
        return [entry.call for entry in self._log.entries if isinstance(entry.call, Pending)]

    def restoration(self, process: bytes) -> m.Restoration:
        """Return what makes the actor in a new process, lent to it."""
        client, log = self._client, self._log
        log.restarts()
        entries = []
        for entry in log.entries:
            if isinstance(entry.call, Pending):
                pending = entry.call
                extras = None if pending.extras is None else pending.extras.told
                slots = slot_values(client, pending, process)
                call = m.Call(entry.task, pending.name, pending.arguments, slots, len(pending.returns), extras)
            else:
                call = entry.call.call
                for value in entry.call.values:
                    client.lend_all(value, process)
            entries.append(m.LogEntry(call, entry.in_doubt))
        state = None if log.state is None else log.state.values[0]
        if state is not None:
            client.lend_all(state, process)
        return m.Restoration(self._every, state, entries)


def handle_logs(client: Client, links: dict[bytes, Link]) -> None:
    """Register the handlers that pass actors' messages on to their logs."""

    def on_logged(peer: Connection, message: m.Logged) -> None:
        log = log_of(message.actor)
        if log is not None:
            log.logged(peer, message)
        else:
            forget(peer, [message.call.arguments, *message.call.slots])

    def on_checkpointed(peer: Connection, message: m.Checkpointed) -> None:
        log = log_of(message.actor)
        if log is not None:
            log.checkpointed(peer, message)
        else:
            forget(peer, [message.state])

    def on_delivered(peer: Connection, message: m.Delivered) -> None:
        log = log_of(message.actor)
        if log is not None:
            log.delivered(peer, message)

    def log_of(actor: bytes) -> KeptLog | None:
        link = links.get(actor)
        return None if link is None else link.log

    def forget(peer: Connection, values: list[m.Value]) -> None:
        for value in values:  # the actor was given up meanwhile
            client.adopt_all(value, peer.peer)
            client.objects.discard(value)

    def on_death(process: bytes, reason: str) -> None:
        for link in links.values():
            if link.log is not None:
                link.log.caller_died(process)

    client.memory.needed.append(lambda: (span for link in links.values() if link.log for span in link.log.spans()))
    client.handlers |= {m.Logged: on_logged, m.Checkpointed: on_checkpointed, m.Delivered: on_delivered}
    client.on_death.append(on_death)
