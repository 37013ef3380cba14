"""Messages of actors that come back with their state, passed on to the logs that this process keeps of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..protocol import messages as m
from ..protocol.connection import Connection
from .actor_queues import ActorQueue
from .kept_log import KeptLog
from .values import Values


class LogKeeper:
    """The logs of all actors that this process owns."""

    def __init__(self, values: Values, queues: Mapping[bytes, ActorQueue]) -> None:
        self._values, self._queues = values, queues

    def on_logged(self, peer: Connection, message: m.Logged) -> None:
        """Event: an actor has run a call of another process."""
        log = self._log_of(message.actor)
        if log is not None:
            log.logged(peer, message)
        else:  # the actor was given up meanwhile
            self._values.discard([message.call.arguments, *message.call.slots], peer.peer)

    def on_checkpointed(self, peer: Connection, message: m.Checkpointed) -> None:
        """Event: an actor has sent its state."""
        log = self._log_of(message.actor)
        if log is not None:
            log.checkpointed(peer, message)
        else:
            self._values.discard([message.state], peer.peer)

    def on_delivered(self, peer: Connection, message: m.Delivered) -> None:
        """Event: another process has an actor's answer."""
        log = self._log_of(message.actor)
        if log is not None:
            log.delivered(peer, message)

    def on_death(self, process: bytes, reason: str) -> None:
        """Event: a process is dead."""
        for queue in self._queues.values():
            if queue.log is not None:
                queue.log.caller_died(process)

    def spans(self) -> Iterator[m.Span]:
        """Yield the blocks that are needed to bring actors back."""
        return (span for queue in self._queues.values() if queue.log for span in queue.log.spans())

    def _log_of(self, actor: bytes) -> KeptLog | None:
        queue = self._queues.get(actor)
        return None if queue is None else queue.log
