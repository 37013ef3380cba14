"""Tasks of this process: queued by their demand, pushed to leased workers, retried when a worker dies.

The node grants leases of workers; the tasks themselves go straight from here to the worker. A worker gets a second
task before it has ended the first only where tasks are known to be short: an idle CPU elsewhere must not wait for a
queue here, and a task of a millisecond must not wait for a round trip.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ...core.engine import Arguments, Function, RunsTasks
from ...core.ids import node_of
from ...core.options import STREAMING, TaskOptions
from ...core.reports.events import AGAIN, BOUNCED
from ...core.values.serialization import take_out_refs
from ...exceptions import OutOfMemoryError, RuntimeEnvSetupError, WorkerCrashedError
from ..protocol import messages as m
from ..protocol.connection import Connection, remember
from ..store.store import Store
from .calls import Calls, Extras, PendingCall, Sender
from .failures import failure
from .links import Links
from .objects import spans_of
from .task_queues import TaskQueue, TaskQueues, WorkerLease
from .values import Values

# Work to have in a worker's queue, seconds, and the most tasks that may make it up.
_AHEAD = 0.002
_MOST_AHEAD = 64
# No process asks for more workers at once; the node grants far fewer.
_MOST_WANTED = 64


class TaskCalls(RunsTasks, Sender):
    """All tasks that this process has submitted and that have not ended.

    Attributes:
        calls: these and those of actors' methods.
        queues: those that wait for a worker, or have one.
        awaiting: those that wait for arguments.
        seconds: how long tasks of each function take.
    """

    def __init__(self, links: Links, values: Values, store: Store, calls: Calls, queues: TaskQueues) -> None:
        self._links, self._values, self._store = links, values, store
        self.calls, self.queues = calls, queues
        self._by_key = queues.by_key
        self.awaiting: dict[bytes, PendingCall] = {}
        self.seconds: dict[bytes, float] = {}

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[Any]:
        links, values = self._links, self._values
        queue = self.queues.of(function, options)
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = self._store.pack_arguments(args, kwargs)
        with links.lock:
            links.check()
            values.settle_drops()
            ids = values.new_ids(max(options.num_returns, 1))
            refs: list[Any] = [values.new_ref(object_id) for object_id in ids] if options.num_returns else []
            keeps = [*slots, *inner, *function.captured] if slots or inner or function.captured else []
            name = options.name or function.name
            pending = PendingCall(ids[0], self, name, function, ids, packed, slots, keeps, options.max_retries)
            pending.queue = queue
            if not options.is_plain:
                told = m.CallExtras(retry=options.retry, window=options.generator_backpressure)
                pending.extras = Extras(told, options.max_calls)
                if options.num_returns == STREAMING:
                    refs = [self.calls.open_stream(pending, refs[0])]
            self.resubmit(pending)
        return refs

    def resubmit(self, pending: PendingCall) -> None:
        """Queue a task once its arguments are there."""
        self.calls.open[pending.task] = pending
        if pending.slots and self.calls.await_arguments(pending, lambda: self._arguments_came(pending)):
            self.awaiting[pending.task] = pending
        else:
            self._enqueue(pending)

    def _arguments_came(self, pending: PendingCall) -> None:
        if self.awaiting.pop(pending.task, None) is not None:  # else it was cancelled
            self._enqueue(pending)

    def _enqueue(self, pending: PendingCall) -> None:
        queue = pending.queue
        failure = queue.failure or self.calls.failed_argument(pending)
        if failure is not None:
            self.calls.fail(pending, failure)
            return
        queue.waiting.append(pending)
        self._pump(queue)

    def _pump(self, queue: TaskQueue) -> None:
        """Push what can be pushed, then say how many workers more could be used."""
        waiting = queue.waiting
        while waiting:
            lease = self._best_lease(queue, self._depth(waiting[0]))
            if lease is None:
                break
            pending = waiting.popleft()
            if pending.slots and self.calls.lacks_arguments(pending):
                self.resubmit(pending)
            else:
                self._push(queue, lease, pending)
        wanted = min(len(waiting), _MOST_WANTED)
        if wanted > queue.wanted or (wanted == 0 and queue.wanted > 0):
            queue.wanted = wanted
            job, retriable = self._links.job, queue.retriable
            message = m.WantLeases(queue.key, queue.demand, wanted, job, queue.environment, queue.placement, retriable)
            message.spread = queue.strategy == "SPREAD"
            if waiting and len(self._links.nodes) > 1:
                message.inputs = self._inputs(waiting[0])
            self._links.node.send(message)

    def _inputs(self, pending: PendingCall) -> dict[m.NodeId, int]:
        """Return how many bytes of a task's arguments lie on which node."""
        values = [self._values.objects.records[ref.id].value for ref in pending.slots]
        sizes: Counter[m.NodeId] = Counter()
        for span in [span for value in values if value is not None for span in spans_of(value)]:
            sizes[node_of(span.maker)] += span.size
        return sizes

    def _depth(self, pending: PendingCall) -> int:
        assert pending.function is not None
        seconds = self.seconds.get(pending.function.id)
        return 1 if seconds is None else max(1, min(_MOST_AHEAD, int(_AHEAD / max(seconds, 1e-6))))

    @staticmethod
    def _best_lease(queue: TaskQueue, depth: int) -> WorkerLease | None:
        best = None
        for lease in queue.leases.values():
            if (
                not lease.stuck
                and not lease.recalled
                and len(lease.inflight) < depth
                and (best is None or len(lease.inflight) < len(best.inflight))
            ):
                best = lease
        return best

    def _push(self, queue: TaskQueue, lease: WorkerLease, pending: PendingCall) -> None:
        connection, function = lease.connection, pending.function
        assert function is not None
        if function.id not in connection.functions:
            remember(connection.functions, function.id, True)
            connection.post(m.Function(function.id, function.payload))
        message = m.Push(
            pending.task,
            function.id,
            pending.name,
            pending.arguments,
            self.calls.arguments_for(lease.worker, pending),
            len(pending.returns),
        )
        if pending.extras is not None:
            self._push_extras(lease, pending, pending.extras, message)
        if connection.post(message):
            # While the worker is busy there is no hurry: its next reply, at the latest, has this flushed.
            self._links.reactor.flush_soon(connection) if lease.inflight else connection.flush()
        if lease.inflight:
            self.queues.look_soon()  # it may be behind a task that takes long
        pending.sent = time.monotonic()
        lease.inflight[pending.task] = pending
        pending.lease = lease
        if queue.strategy == "SPREAD" and len(self._links.nodes) > 1:
            lease.recalled = True  # the next one is to run elsewhere

    @staticmethod
    def _push_extras(lease: WorkerLease, pending: PendingCall, extras: Extras, message: m.Push) -> None:
        extras.apply(message)
        if extras.max_calls:
            assert pending.function is not None
            lease.calls = lease.calls or {}
            lease.calls[pending.function.id] = count = lease.calls.get(pending.function.id, 0) + 1
            lease.recalled = lease.recalled or count >= extras.max_calls

    # Events -----------------------------------------------------------------------------------------------------

    def on_leased(self, node: Connection, message: m.Leased) -> None:
        queue = self._by_key.get(message.key)
        if queue is None:
            return  # its placement group is gone, and the worker with it
        queue.wanted = max(0, queue.wanted - 1)
        connection = self._links.peer(message.worker)
        if connection is not None:  # else it has died already
            connection.post(self.queues.assignment(queue, message.gpus))
            queue.leases[message.worker] = WorkerLease(message.worker, connection)
            self.queues.look_soon()
        self._pump(queue)

    def on_environment_failed(self, node: Connection, message: m.EnvironmentFailed) -> None:
        """Event: workers for a queue cannot start. Its tasks fail; the next one submitted has it tried again."""
        queue = self._by_key[message.key]
        while queue.waiting:
            pending = queue.waiting.popleft()
            error = RuntimeEnvSetupError(f"task {pending.name} cannot run in its runtime_env: {message.reason}")
            self.calls.fail(pending, failure(error))
        self._pump(queue)

    def on_reply(self, peer: Connection, pending: PendingCall, message: m.Reply) -> None:
        queue, lease = self._take_back(pending)
        self._note_time(pending, message.seconds)
        if pending.is_interrupted:
            queue.waiting.append(pending)
        else:
            self.calls.finish(pending, message.values, peer.peer, message.seconds)
        self._has_ended(queue, lease)

    def on_try_again(self, pending: PendingCall, failure: m.Value) -> None:
        queue, lease = self._take_back(pending)
        if pending.use_retry():
            self._links.note((time.monotonic(), AGAIN, pending.task, "it raised an exception"))
            queue.waiting.append(pending)
        else:
            self.calls.give_up(pending, failure)
        self._has_ended(queue, lease)

    @staticmethod
    def _take_back(pending: PendingCall) -> tuple[TaskQueue, WorkerLease]:
        """Note that a worker is done with a task; return the queue of its like, and the worker."""
        lease = pending.lease
        del lease.inflight[pending.task]
        pending.lease, lease.stuck = None, False
        return pending.queue, lease

    def _has_ended(self, queue: TaskQueue, lease: WorkerLease) -> None:
        if queue.waiting:
            self._pump(queue)
        if not lease.inflight:
            lease.idle_since = time.monotonic()
            if lease.recalled:
                self.queues.give_back(queue, lease)
            else:
                self.queues.look_soon()

    def on_argument_lost(self, pending: PendingCall, message: m.ArgumentLost) -> None:
        queue, lease = self._take_back(pending)
        if self.calls.make_arguments_again(pending, message.span):
            self.resubmit(pending)
        self._has_ended(queue, lease)

    def _note_time(self, pending: PendingCall, seconds: float) -> None:
        assert pending.function is not None
        known = self.seconds.get(pending.function.id)
        if known is None:
            remember(self.seconds, pending.function.id, seconds)
        else:
            self.seconds[pending.function.id] = known + 0.3 * (seconds - known)

    def on_bounced(self, worker: Connection, message: m.Bounced) -> None:
        left: dict[TaskQueue, WorkerLease] = {}
        for task in reversed(message.tasks):
            pending = self.calls.open.get(task)
            if pending is not None and pending.lease is not None:
                lease = left[pending.queue] = pending.lease
                lease.stuck = True
                self._links.note((time.monotonic(), BOUNCED, task, lease.worker))
                del lease.inflight[task]
                self._queue_again([pending])
        for queue, lease in left.items():
            if not lease.inflight:  # what they were behind has ended meanwhile
                lease.stuck = False
            self._has_ended(queue, lease)

    def on_death(self, process: bytes, reason: str) -> None:
        """Event: a process is dead."""
        for queue in list(self._by_key.values()):
            lease = queue.leases.pop(process, None)
            if lease is not None:
                died = OutOfMemoryError if process in self._links.starved else WorkerCrashedError
                self._rescue(queue, list(lease.inflight.values()), reason, died)

    def on_node_death(self, node: bytes, reason: str) -> None:
        """Ask the node again for workers: it may have been that node which was to grant them."""
        self.queues.on_node_death()
        for queue in self._by_key.values():
            queue.wanted = 0
            self._pump(queue)

    def _rescue(self, queue: TaskQueue, tasks: list[PendingCall], reason: str, died: type[WorkerCrashedError]) -> None:
        """Queue again what a dead worker had; only the first task was running and can be to blame."""
        if tasks and not tasks[0].cancelled and not tasks[0].use_retry():
            guilty = tasks.pop(0)
            error = died(
                f"task {guilty.name} has no retries left{guilty.attempts()} "
                f"(raise max_retries if this is not its own fault): {reason}"
            )
            self.calls.fail(guilty, failure(error))
        for pending in tasks:
            self._links.note((time.monotonic(), AGAIN, pending.task, reason))
        self._queue_again(tasks)
        self._pump(queue)

    def _queue_again(self, tasks: list[PendingCall]) -> None:
        """Put tasks at the head of their queue, but for those that were cancelled meanwhile."""
        for pending in reversed(tasks):
            pending.lease = None
            if pending.cancelled:
                self.calls.cancel(pending)
            else:
                pending.queue.waiting.appendleft(pending)

    def on_group_state(self, node: Connection, message: m.GroupState) -> None:
        """Event: the node says how a placement group is; if it is gone, what was to run in it, or ran, fails."""
        self.queues.groups.on_state(message)
        for queue in self.queues.drop_group(message.group) if message.state == "REMOVED" else ():
            failure = queue.failure
            assert failure is not None
            failed = list(queue.waiting)
            for lease in queue.leases.values():
                failed += lease.inflight.values()
            queue.waiting.clear()
            queue.leases.clear()
            for pending in failed:
                self.calls.fail(pending, failure)

    # Cancelling -------------------------------------------------------------------------------------------------

    def has_sent(self, pending: PendingCall) -> bool:
        return pending.lease is not None

    def withdraw(self, pending: PendingCall) -> bool:
        if self.has_sent(pending):
            return False
        if self.awaiting.pop(pending.task, None) is None:
            pending.queue.waiting.remove(pending)
            self._pump(pending.queue)
        return True

    def tell(self, pending: PendingCall, message: m.Message) -> None:
        if pending.lease is not None:
            pending.lease.connection.send(message)
