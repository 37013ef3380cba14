"""Tasks of this process: queued by their demand, pushed to leased workers, retried when a worker dies.

The node grants leases of workers; the tasks themselves go straight from here to the worker. A worker gets a second
task before it has ended the first only where tasks are known to be short: an idle CPU elsewhere must not wait for a
queue here, and a task of a millisecond must not wait for a round trip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from ..engine import Arguments, Function
from ..exceptions import ObjectLostError, RuntimeEnvSetupError, WorkerCrashedError
from ..failure import pack_error, type_of_failure
from ..options import TaskOptions
from ..refs import ObjectRef
from ..reports import TaskReport
from ..serialization import take_out_refs
from ..story_events import AGAIN, BOUNCED, ENDED
from . import messages as m
from .call_reports import task_groups, task_rows
from .calls import Pending, remember
from .client import Client
from .connection import Connection
from .environments import Environments
from .group_calls import GroupCalls
from .task_kinds import Kind, Kinds, WorkerLease

# A lease without work is kept this long, seconds: a loop of `get(f.remote())` must not ask the node each time.
_LINGER = 0.02
# Work to have in a worker's queue, seconds, and the most tasks that may make it up.
_AHEAD = 0.002
_MOST_AHEAD = 64
# No process asks for more workers at once; the node grants far fewer.
_MOST_WANTED = 64


class TaskCalls:
    """All tasks that this process has submitted and that have not ended."""

    def __init__(self, client: Client, environments: Environments, groups: GroupCalls) -> None:
        self._client, self._groups = client, groups
        self._kinds = kinds = Kinds(client, environments, groups)
        self._by_key = kinds.by_key
        self._awaiting: dict[bytes, tuple[Kind, Pending]] = {}
        self._running: dict[bytes, tuple[Kind, WorkerLease]] = {}
        self._seconds: dict[bytes, float] = {}
        self._ticking = False
        client.handlers[m.Leased] = self._on_leased
        client.handlers[m.Bounced] = self._on_bounced
        client.handlers[m.EnvironmentFailed] = self._on_environment_failed
        client.recovery.resubmit_task = self._submit
        client.handlers[m.Recall] = self._on_recall
        groups.on_removed.append(self._on_group_removed)
        client.on_death.append(self._on_death)

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[ObjectRef]:
        """Queue a task; return references to what it will return."""
        client = self._client
        kind = self._kinds.of(function, options)
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = client.store.pack_arguments(args, kwargs)
        with client.lock:
            client.check()
            client.settle_drops()
            ids = client.new_ids(max(options.num_returns, 1))
            refs = [client.new_ref(object_id) for object_id in ids] if options.num_returns else []
            keeps = [*slots, *inner, *function.captured] if slots or inner or function.captured else []
            pending = Pending(function.name, function, ids, packed, slots, keeps, options.max_retries)
            pending.kind = kind
            self._submit(pending)
        return refs

    def _submit(self, pending: Pending) -> None:
        """Queue a task once its arguments are there."""
        if pending.slots and await_slots(self._client, pending, lambda: self._arguments_came(pending)):
            self._awaiting[pending.task] = (pending.kind, pending)
        else:
            self._enqueue(pending.kind, pending)

    def report(self) -> Iterator[TaskReport]:
        """Yield a row for each task that has not ended."""
        return task_rows(self._client, self._by_key.values(), self._awaiting.values())

    def report_groups(self) -> Iterator[TaskReport]:
        """Yield the same, counted by name and state."""
        return task_groups(self._by_key.values(), self._awaiting.values())

    def _arguments_came(self, pending: Pending) -> None:
        kind, _ = self._awaiting.pop(pending.task)
        self._enqueue(kind, pending)

    def _enqueue(self, kind: Kind, pending: Pending) -> None:
        failure = kind.failure or failed_slot(self._client, pending)
        if failure is not None:
            finish(self._client, pending, [failure] * len(pending.returns))
            return
        kind.queue.append(pending)
        self._pump(kind)

    def _pump(self, kind: Kind) -> None:
        """Push what can be pushed, then say how many workers more could be used."""
        queue = kind.queue
        while queue:
            lease = self._best_lease(kind, self._depth(queue[0]))
            if lease is None:
                break
            self._push(kind, lease, queue.popleft())
        wanted = min(len(queue), _MOST_WANTED)
        if wanted > kind.wanted or (wanted == 0 and kind.wanted > 0):
            kind.wanted = wanted
            message = m.WantLeases(kind.key, kind.demand, wanted, kind.environment, kind.placement)
            self._client.node.send(message)

    def _depth(self, pending: Pending) -> int:
        assert pending.function is not None
        seconds = self._seconds.get(pending.function.id)
        return 1 if seconds is None else max(1, min(_MOST_AHEAD, int(_AHEAD / max(seconds, 1e-6))))

    @staticmethod
    def _best_lease(kind: Kind, depth: int) -> WorkerLease | None:
        best = None
        for lease in kind.leases.values():
            if (
                not lease.stuck
                and not lease.recalled
                and len(lease.inflight) < depth
                and (best is None or len(lease.inflight) < len(best.inflight))
            ):
                best = lease
        return best

    def _push(self, kind: Kind, lease: WorkerLease, pending: Pending) -> None:
        client, connection, function = self._client, lease.connection, pending.function
        assert function is not None
        if function.id not in connection.functions:
            remember(connection.functions, function.id, True)
            connection.post(m.Function(function.id, function.payload))
        message = m.Push(
            pending.task,
            function.id,
            pending.name,
            pending.arguments,
            slot_values(client, pending, lease.worker),
            len(pending.returns),
        )
        if connection.post(message):
            # While the worker is busy there is no hurry: its next reply, at the latest, has this flushed.
            client.reactor.flush_soon(connection) if lease.inflight else connection.flush()
        pending.sent = time.monotonic()
        lease.inflight[pending.task] = pending
        self._running[pending.task] = (kind, lease)

    # Events -----------------------------------------------------------------------------------------------------

    def _on_leased(self, node: Connection, message: m.Leased) -> None:
        client = self._client
        kind = self._by_key.get(message.key)
        if kind is None:
            return  # its placement group is gone, and the worker with it
        kind.wanted = max(0, kind.wanted - 1)
        connection = client.peer(message.worker)
        if connection is not None:  # else it has died already
            connection.post(self._groups.assignment(kind.demand, message.gpus, kind.strategy))
            kind.leases[message.worker] = WorkerLease(message.worker, connection)
            self._tick_soon()
        self._pump(kind)

    def _on_environment_failed(self, node: Connection, message: m.EnvironmentFailed) -> None:
        """Event: workers of a kind cannot start. Its tasks fail; whoever submits again has it tried again."""
        kind = self._by_key[message.key]
        while kind.queue:
            pending = kind.queue.popleft()
            error = RuntimeEnvSetupError(f"task {pending.name} cannot run in its runtime_env: {message.reason}")
            finish(self._client, pending, [m.Value(pack_error(error), failed=True)] * len(pending.returns))
        self._pump(kind)

    def on_reply(self, peer: Connection, message: m.Reply) -> bool:
        """Event: a task has ended. False if it is not one of ours."""
        found = self._running.pop(message.task, None)
        if found is None:
            return False
        kind, lease = found
        pending = lease.inflight.pop(message.task)
        self._note_time(pending, message.seconds)
        finish(self._client, pending, message.values, peer.peer, message.seconds)
        self._has_ended(kind, lease)
        return True

    def _has_ended(self, kind: Kind, lease: WorkerLease) -> None:
        lease.stuck = False
        if kind.queue:
            self._pump(kind)
        if not lease.inflight:
            lease.idle_since = time.monotonic()
            if lease.recalled:
                self._return(kind, lease)
            else:
                self._tick_soon()

    def on_argument_lost(self, message: m.ArgumentLost) -> bool:
        """Event: a task could not read an argument and was not run. False if it is not one of ours."""
        found = self._running.pop(message.task, None)
        if found is None:
            return False
        kind, lease = found
        pending = lease.inflight.pop(message.task)
        if again_with_arguments(self._client, pending, message.span):
            self._submit(pending)
        self._has_ended(kind, lease)
        return True

    def _note_time(self, pending: Pending, seconds: float) -> None:
        assert pending.function is not None
        known = self._seconds.get(pending.function.id)
        if known is None:
            remember(self._seconds, pending.function.id, seconds)
        else:
            self._seconds[pending.function.id] = known + 0.3 * (seconds - known)

    def _on_bounced(self, worker: Connection, message: m.Bounced) -> None:
        kinds = set()
        for task in reversed(message.tasks):
            found = self._running.pop(task, None)
            if found is not None:
                kind, lease = found
                lease.stuck = True
                self._client.note((time.monotonic(), BOUNCED, task, lease.worker))
                kind.queue.appendleft(lease.inflight.pop(task))
                kinds.add(kind)
        for kind in kinds:
            self._pump(kind)

    def _on_death(self, process: bytes, reason: str) -> None:
        for kind in list(self._by_key.values()):
            lease = kind.leases.pop(process, None)
            if lease is not None:
                self._rescue(kind, list(lease.inflight.values()), reason)

    def _rescue(self, kind: Kind, tasks: list[Pending], reason: str) -> None:
        """Queue again what a dead worker had; only the first task was running and can be to blame."""
        for pending in tasks:
            del self._running[pending.task]
        if tasks and not tasks[0].use_retry():
            guilty = tasks.pop(0)
            error = WorkerCrashedError(
                f"task {guilty.name} has no retries left: {reason}. "
                "Raise max_retries if the crash is not the task's own fault"
            )
            finish(self._client, guilty, [m.Value(pack_error(error), failed=True)] * len(guilty.returns))
        for pending in tasks:
            self._client.note((time.monotonic(), AGAIN, pending.task, reason))
        kind.queue.extendleft(reversed(tasks))
        self._pump(kind)

    def _on_group_removed(self, group: bytes) -> None:
        """Event: a placement group is gone: what was to run in it, or ran, fails."""
        for kind in self._kinds.drop_group(group):
            failure = kind.failure
            assert failure is not None
            failed = list(kind.queue)
            for lease in kind.leases.values():
                failed += lease.inflight.values()
                for task in lease.inflight:
                    del self._running[task]
            kind.queue.clear()
            kind.leases.clear()
            for pending in failed:
                finish(self._client, pending, [failure] * len(pending.returns))

    # Giving leases back -----------------------------------------------------------------------------------------

    def _on_recall(self, node: Connection, message: m.Recall) -> None:
        for kind in self._by_key.values():
            lease = kind.leases.get(message.worker)
            if lease is not None:
                lease.recalled = True
                if not lease.inflight:
                    self._return(kind, lease)

    def _return(self, kind: Kind, lease: WorkerLease) -> None:
        del kind.leases[lease.worker]
        self._client.node.send(m.ReturnLease(lease.worker))

    def _tick_soon(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._client.reactor.call_later(_LINGER, self._tick)

    def _tick(self) -> None:
        with self._client.lock:
            self._ticking = False
            now = time.monotonic()
            idle = False
            for kind in self._by_key.values():
                for lease in list(kind.leases.values()):
                    if lease.inflight:
                        continue
                    if now - lease.idle_since >= _LINGER:
                        self._return(kind, lease)
                    else:
                        idle = True
            if idle:
                self._tick_soon()


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


def failed_slot(client: Client, pending: Pending) -> m.Value | None:
    """Return the first argument that is a failure: the call fails with it."""
    values: Iterable[m.Value | None] = (client.objects.records[ref.id].value for ref in pending.slots)
    return next((value for value in values if value is not None and value.failed), None)


def slot_values(client: Client, pending: Pending, to: bytes) -> list[m.Value]:
    """Return the values that replace references, lent to the process that the call is about to be sent to."""
    values = []
    for ref in pending.slots:
        value = client.objects.records[ref.id].value
        assert value is not None
        client.lend_all(value, to)
        values.append(value)
    client.lend_all(pending.arguments, to)
    return values


def finish(
    client: Client, pending: Pending, values: list[m.Value], by: bytes | None = None, seconds: float = 0.0
) -> None:
    """A call has ended: store what it returned, sent `by` a process that ran it so long; let go of what it kept."""
    link = pending.link
    if link is None or pending.function is None:  # a constructor has not ended when it is no longer needed
        error = type_of_failure(values[0].stream) if values and values[0].failed else ""
        who = ("", pending.name, b"") if link is None else (link.name, pending.name, link.key)
        times = (pending.submitted, pending.sent, seconds)
        client.note((time.monotonic(), ENDED, pending.task, (*who, by, *times, len(pending.returns), error)))
    outside = False
    for object_id, value in zip(pending.returns, values, strict=False):
        client.fulfil(object_id, value, by)
        if value.buffers or type(value.stream) is m.Span:
            outside = True
    if outside or pending.task in client.recovery.lineage.tasks:
        client.recovery.ended(pending)
        return
    if pending.arguments.buffers or type(pending.arguments.stream) is m.Span:
        client.objects.discard(pending.arguments)
    pending.keeps = pending.slots = []


def again_with_arguments(client: Client, pending: Pending, span: m.Span) -> bool:
    """Have the arguments made again that lie in a lost block; False if the call has failed: they cannot be."""
    if client.recovery.lost_argument(pending, span):
        return True
    finish(client, pending, [m.Value(pack_error(arguments_lost(pending)), failed=True)] * len(pending.returns))
    return False


def arguments_lost(pending: Pending) -> ObjectLostError:
    """Return the error of a call whose own arguments are in a lost block."""
    return ObjectLostError(
        f"{pending.name}: its arguments cannot be read: their block of shared memory is lost. Make the call again, "
        "or pass what a task has returned: that can be made again"
    )
