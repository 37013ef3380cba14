"""Cancelling of calls, on the side of their callers: what waits is dropped, what was sent is told to stop."""

from __future__ import annotations

from ...core.ids import owner_of
from ...core.refs import ObjectRef
from ...exceptions import InputError
from ..protocol import messages as m
from ..protocol.connection import Connection
from .calls import Calls, PendingCall
from .links import Links
from .values import Values

# A worker that has not killed itself this many seconds after it was told to is killed by the node.
_PATIENCE = 0.5


class Cancelling:
    """All that can be cancelled of what this process has submitted."""

    def __init__(self, links: Links, values: Values, calls: Calls) -> None:
        self._links, self._values, self._calls = links, values, calls

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Cancel the task that makes an object; see `shoal.runtime.cancel`."""
        with self._links.lock:
            self._links.check()
            self._values.settle_drops()
            owner = owner_of(ref.id)
            peer = None if owner == self._links.me else self._links.peer(owner)
            if peer is not None:
                peer.send(m.CancelObject(ref.id, force, recursive))
            pending = self._find(ref.id)
            if pending is not None:
                if force and pending.is_method:
                    raise InputError(
                        f"cancel(force=True): {pending.actor.name}.{pending.name} is a call of an actor. "
                        "Use kill(actor) to end the actor, or cancel without force"
                    )
                self._cancel(pending, force, recursive)

    def cancel_children(self, task: m.ObjectId, force: bool) -> None:
        """Cancel what a task of this process has submitted, and they in turn."""
        with self._links.lock:
            for pending in [pending for pending in self._calls.open.values() if pending.parent == task]:
                if pending.task in self._calls.open:  # else one before it was its argument, and has taken it along
                    self._cancel(pending, force and not pending.is_method, True)

    def on_cancel_object(self, borrower: Connection, message: m.CancelObject) -> None:
        pending = self._find(message.object)
        if pending is not None:
            self._cancel(pending, message.force and not pending.is_method, message.recursive)

    def _find(self, object_id: m.ObjectId) -> PendingCall | None:
        record = self._values.objects.records.get(object_id)
        if record is None or record.value is not None:
            return None
        pending = self._calls.open.get(object_id)
        if pending is not None:
            return pending
        return next((call for call in self._calls.open.values() if object_id in call.returns), None)

    def _cancel(self, pending: PendingCall, force: bool, recursive: bool) -> None:
        pending.extend().cancelled = True
        if not self._calls.take_back(pending, m.CancelTask(pending.task, force, recursive)) and force:
            self._links.reactor.call_later(_PATIENCE, lambda: self._kill(pending))

    def _kill(self, pending: PendingCall) -> None:
        """The worker does not listen: native code keeps Python's lock, or it is stopped."""
        with self._links.lock:
            if self._links.broken is None and self._calls.open.get(pending.task) is pending:
                if pending.lease is not None and next(iter(pending.lease.inflight)) == pending.task:
                    self._links.node.send(m.KillWorker(pending.lease.worker))
                self._links.reactor.call_later(_PATIENCE, lambda: self._kill(pending))
