"""Tasks of this process: queued by their demand, pushed to leased workers, retried when a worker dies.

The node grants leases of workers; the tasks themselves go straight from here to the worker. A worker gets a second
task before it has ended the first only where tasks are known to be short: an idle CPU elsewhere must not wait for a
queue here, and a task of a millisecond must not wait for a round trip.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...engine import Arguments, Function
from ...exceptions import OutOfMemoryError, RuntimeEnvSetupError, WorkerCrashedError
from ...failure import pack_error
from ...introspection.reports import TaskReport
from ...introspection.story_events import AGAIN, BOUNCED
from ...options import STREAMING, TaskOptions
from ...serialization import take_out_refs
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..protocol.wire import node_of
from .call_reports import task_groups, task_rows
from .calls import (
    Extras,
    Pending,
    again_with_arguments,
    await_slots,
    cancelled,
    failed_slot,
    finish,
    give_up,
    has_lost_slot,
    remember,
    slot_values,
)
from .client import Client
from .environments import Environments
from .group_calls import GroupCalls
from .leases import Leases
from .objects import spans_of
from .streams import open_stream
from .task_kinds import Kind, Kinds, WorkerLease

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
        self.leases = Leases(client, kinds)
        self._awaiting: dict[bytes, tuple[Kind, Pending]] = {}
        self._seconds: dict[bytes, float] = {}
        client.handlers[m.Leased] = self._on_leased
        client.handlers[m.Bounced] = self._on_bounced
        client.handlers[m.EnvironmentFailed] = self._on_environment_failed
        client.recovery.resubmit_task = self._submit
        groups.on_removed.append(self._on_group_removed)
        client.on_death.append(self._on_death)
        client.on_node_death.append(self._on_node_death)

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[Any]:
        """Queue a task; return references to what it will return, or the generator of them."""
        client = self._client
        kind = self._kinds.of(function, options)
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = client.store.pack_arguments(args, kwargs)
        with client.lock:
            client.check()
            client.settle_drops()
            ids = client.new_ids(max(options.num_returns, 1))
            refs: list[Any] = [client.new_ref(object_id) for object_id in ids] if options.num_returns else []
            keeps = [*slots, *inner, *function.captured] if slots or inner or function.captured else []
            name = options.name or function.name
            pending = Pending(name, function, ids, packed, slots, keeps, options.max_retries)
            pending.kind = kind
            if not options.is_plain:
                pending.extras = Extras.of_task(options)
                if options.num_returns == STREAMING:
                    refs = [open_stream(client, pending, refs[0], self)]
            self._submit(pending)
        return refs

    def _submit(self, pending: Pending) -> None:
        """Queue a task once its arguments are there."""
        self._client.calls[pending.task] = pending
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
        found = self._awaiting.pop(pending.task, None)
        if found is not None:  # else it was cancelled
            self._enqueue(*found)

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
            pending = queue.popleft()
            if pending.slots and has_lost_slot(self._client, pending):
                self._submit(pending)
            else:
                self._push(kind, lease, pending)
        wanted = min(len(queue), _MOST_WANTED)
        if wanted > kind.wanted or (wanted == 0 and kind.wanted > 0):
            kind.wanted = wanted
            job, retriable = self._client.job, kind.retriable
            message = m.WantLeases(kind.key, kind.demand, wanted, job, kind.environment, kind.placement, retriable)
            message.spread = kind.strategy == "SPREAD"
            if queue and len(self._client.nodes) > 1:
                message.inputs = self._inputs(queue[0])
            self._client.node.send(message)

    def _inputs(self, pending: Pending) -> dict[m.NodeId, int]:
        """Return how many bytes of a task's arguments lie on which node."""
        values = [self._client.objects.records[ref.id].value for ref in pending.slots]
        sizes: Counter[m.NodeId] = Counter()
        for span in [span for value in values if value is not None for span in spans_of(value)]:
            sizes[node_of(span.maker)] += span.size
        return sizes

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
        if pending.extras is not None:
            self._push_extras(lease, pending, pending.extras, message)
        if connection.post(message):
            # While the worker is busy there is no hurry: its next reply, at the latest, has this flushed.
            client.reactor.flush_soon(connection) if lease.inflight else connection.flush()
        if lease.inflight:
            self.leases.look_soon()  # it may be behind a task that takes long
        pending.sent = time.monotonic()
        lease.inflight[pending.task] = pending
        pending.lease = lease
        if kind.strategy == "SPREAD" and len(client.nodes) > 1:
            lease.recalled = True  # the next one is to run elsewhere

    @staticmethod
    def _push_extras(lease: WorkerLease, pending: Pending, extras: Extras, message: m.Push) -> None:
        extras.apply(message)
        if extras.max_calls:
            assert pending.function is not None
            lease.calls = lease.calls or {}
            lease.calls[pending.function.id] = count = lease.calls.get(pending.function.id, 0) + 1
            lease.recalled = lease.recalled or count >= extras.max_calls

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
            self.leases.look_soon()
        self._pump(kind)

    def _on_environment_failed(self, node: Connection, message: m.EnvironmentFailed) -> None:
        """Event: workers of a kind cannot start. Its tasks fail; whoever submits again has it tried again."""
        kind = self._by_key[message.key]
        while kind.queue:
            pending = kind.queue.popleft()
            error = RuntimeEnvSetupError(f"task {pending.name} cannot run in its runtime_env: {message.reason}")
            finish(self._client, pending, [m.Value(pack_error(error), failed=True)] * len(pending.returns))
        self._pump(kind)

    def on_reply(self, peer: Connection, pending: Pending, message: m.Reply) -> None:
        """Event: a task has ended."""
        kind, lease = pending.kind, pending.lease
        del lease.inflight[message.task]
        pending.lease, lease.stuck = None, False
        self._note_time(pending, message.seconds)
        if pending.is_interrupted:
            kind.queue.append(pending)
        else:
            finish(self._client, pending, message.values, peer.peer, message.seconds)
        self._has_ended(kind, lease)

    def on_try_again(self, pending: Pending, failure: m.Value) -> None:
        """Event: a task has raised an exception after which it is to be run again."""
        kind, lease = pending.kind, pending.lease
        del lease.inflight[pending.task]
        pending.lease, lease.stuck = None, False
        if pending.use_retry():
            self._client.note((time.monotonic(), AGAIN, pending.task, "it raised an exception"))
            kind.queue.append(pending)
        else:
            give_up(self._client, pending, failure)
        self._has_ended(kind, lease)

    def _has_ended(self, kind: Kind, lease: WorkerLease) -> None:
        if kind.queue:
            self._pump(kind)
        if not lease.inflight:
            lease.idle_since = time.monotonic()
            if lease.recalled:
                self.leases.give_back(kind, lease)
            else:
                self.leases.look_soon()

    def on_argument_lost(self, pending: Pending, message: m.ArgumentLost) -> None:
        """Event: a task could not read an argument and was not run."""
        kind, lease = pending.kind, pending.lease
        del lease.inflight[message.task]
        pending.lease, lease.stuck = None, False
        if again_with_arguments(self._client, pending, message.span):
            self._submit(pending)
        self._has_ended(kind, lease)

    def _note_time(self, pending: Pending, seconds: float) -> None:
        assert pending.function is not None
        known = self._seconds.get(pending.function.id)
        if known is None:
            remember(self._seconds, pending.function.id, seconds)
        else:
            self._seconds[pending.function.id] = known + 0.3 * (seconds - known)

    def _on_bounced(self, worker: Connection, message: m.Bounced) -> None:
        left: dict[Kind, WorkerLease] = {}
        for task in reversed(message.tasks):
            pending = self._client.calls.get(task)
            if pending is not None and pending.lease is not None:
                lease = left[pending.kind] = pending.lease
                lease.stuck = True
                self._client.note((time.monotonic(), BOUNCED, task, lease.worker))
                del lease.inflight[task]
                self._queue_again([pending])
        for kind, lease in left.items():
            if not lease.inflight:  # what they were behind has ended meanwhile
                lease.stuck = False
            self._has_ended(kind, lease)

    def _on_death(self, process: bytes, reason: str) -> None:
        for kind in list(self._by_key.values()):
            lease = kind.leases.pop(process, None)
            if lease is not None:
                died = OutOfMemoryError if process in self._client.starved else WorkerCrashedError
                self._rescue(kind, list(lease.inflight.values()), reason, died)

    def _on_node_death(self, node: bytes, reason: str) -> None:
        """Say again what we want: it may have been that node which was to grant it."""
        for kind in self._kinds.by_key.values():
            kind.wanted = 0
            self._pump(kind)

    def _rescue(self, kind: Kind, tasks: list[Pending], reason: str, died: type[WorkerCrashedError]) -> None:
        """Queue again what a dead worker had; only the first task was running and can be to blame."""
        if tasks and not tasks[0].cancelled and not tasks[0].use_retry():
            guilty = tasks.pop(0)
            error = died(
                f"task {guilty.name} has no retries left{guilty.attempts()} "
                f"(raise max_retries if this is not its own fault): {reason}"
            )
            finish(self._client, guilty, [m.Value(pack_error(error), failed=True)] * len(guilty.returns))
        for pending in tasks:
            self._client.note((time.monotonic(), AGAIN, pending.task, reason))
        self._queue_again(tasks)
        self._pump(kind)

    def _queue_again(self, tasks: list[Pending]) -> None:
        """Put tasks before all others of their kind, but for those that were cancelled meanwhile."""
        for pending in reversed(tasks):
            pending.lease = None
            if pending.cancelled:
                finish(self._client, pending, [cancelled(pending)] * len(pending.returns))
            else:
                pending.kind.queue.appendleft(pending)

    def _on_group_removed(self, group: bytes) -> None:
        """Event: a placement group is gone: what was to run in it, or ran, fails."""
        for kind in self._kinds.drop_group(group):
            failure = kind.failure
            assert failure is not None
            failed = list(kind.queue)
            for lease in kind.leases.values():
                failed += lease.inflight.values()
            kind.queue.clear()
            kind.leases.clear()
            for pending in failed:
                finish(self._client, pending, [failure] * len(pending.returns))

    # Cancelling -------------------------------------------------------------------------------------------------

    def has_sent(self, pending: Pending) -> bool:
        """Return whether a worker has the task."""
        return pending.lease is not None

    def withdraw(self, pending: Pending) -> bool:
        """Take a task out of its queue; False if it was sent to a worker already."""
        if self.has_sent(pending):
            return False
        if self._awaiting.pop(pending.task, None) is None:
            pending.kind.queue.remove(pending)
            self._pump(pending.kind)
        return True

    def tell(self, pending: Pending, message: m._Message) -> None:
        """Send a message to the worker that has the task, if one has."""
        if pending.lease is not None:
            pending.lease.connection.send(message)

    def kill_worker(self, pending: Pending) -> None:
        """Ask the node to kill the worker that runs the task."""
        if pending.lease is not None and next(iter(pending.lease.inflight)) == pending.task:
            self._client.node.send(m.KillWorker(pending.lease.worker))
