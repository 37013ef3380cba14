"""Cancelling of calls, on the side of their callers: what waits is dropped, what was sent is told to stop."""

from __future__ import annotations

from ...exceptions import InputError
from ...refs import ObjectRef
from ..protocol import messages as m
from ..protocol.connection import Connection
from .actor_calls import ActorCalls
from .calls import Pending, cancelled, finish
from .client import Client
from .objects import owner_of
from .task_calls import TaskCalls

# A worker that has not killed itself this many seconds after it was told to is killed by the node.
_PATIENCE = 0.5


class Cancelling:
    """All that can be cancelled of what this process has submitted."""

    def __init__(self, client: Client, tasks: TaskCalls, calls: ActorCalls) -> None:
        self._client, self._tasks, self._calls = client, tasks, calls
        client.handlers[m.CancelObject] = self._on_cancel_object

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Cancel the task that makes an object; see `shoal.runtime.cancel`."""
        client = self._client
        with client.lock:
            client.check()
            client.settle_drops()
            owner = owner_of(ref.id)
            peer = None if owner == client.me else client.peer(owner)
            if peer is not None:
                peer.send(m.CancelObject(ref.id, force, recursive))
            pending = self._find(ref.id)
            if pending is not None:
                if force and pending.function is None:
                    raise InputError(
                        f"cancel(force=True): {pending.link.name}.{pending.name} is a call of an actor. "
                        "Use kill(actor) to end the actor, or cancel without force"
                    )
                self._cancel(pending, force, recursive)

    def cancel_children(self, task: m.ObjectId, force: bool) -> None:
        """Cancel what a task of this process has submitted, and they in turn."""
        with self._client.lock:
            for pending in [pending for pending in self._client.calls.values() if pending.parent == task]:
                self._cancel(pending, force and pending.function is not None, True)

    def _on_cancel_object(self, borrower: Connection, message: m.CancelObject) -> None:
        pending = self._find(message.object)
        if pending is not None:
            self._cancel(pending, message.force and pending.function is not None, message.recursive)

    def _find(self, object_id: m.ObjectId) -> Pending | None:
        record = self._client.objects.records.get(object_id)
        if record is None or record.value is not None:
            return None
        pending = self._client.calls.get(object_id)
        if pending is not None:
            return pending
        return next((call for call in self._client.calls.values() if object_id in call.returns), None)

    def _cancel(self, pending: Pending, force: bool, recursive: bool) -> None:
        pending.extend().cancelled = True
        calls = self._calls if pending.function is None else self._tasks
        if calls.withdraw(pending):
            finish(self._client, pending, [cancelled(pending)] * len(pending.returns))
            return
        calls.tell(pending, m.CancelTask(pending.task, force, recursive))
        if force:
            self._client.reactor.call_later(_PATIENCE, lambda: self._kill(pending))

    def _kill(self, pending: Pending) -> None:
        """The worker does not listen: native code keeps Python's lock, or it is stopped."""
        with self._client.lock:
            if self._client.broken is None and self._client.calls.get(pending.task) is pending:
                self._tasks.kill_worker(pending)
                self._client.reactor.call_later(_PATIENCE, lambda: self._kill(pending))
