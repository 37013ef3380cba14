"""Calls of actors' methods: one ordered queue per actor, straight to its process.

An actor's queue has also what its owner needs to make it, as often as it must be made: see `actors.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from msgspec import Struct, field

from ...core.engine import ActorId, ActorState, Arguments, CallsActors, Function
from ...core.options import STREAMING, ActorOptions, MethodOptions
from ...core.reports.events import AGAIN
from ...core.results import died, too_many_calls
from ...core.scheduling import SchedulingStrategy
from ...core.values.packed_exceptions import is_own, pack_error
from ...core.values.serialization import take_out_refs
from ...exceptions import ActorUnavailableError, RuntimeEnvSetupError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.store import Store
from .calls import Calls, Extras, PendingCall, Sender
from .failures import failure
from .kept_log import KeptLog
from .links import Links
from .values import Values


class Constructor(Struct, eq=False):
    """For the owner: what makes the actor, as often as it must be made."""

    cls: Function
    options: ActorOptions
    arguments: PendingCall
    identity: bytes
    strategy: SchedulingStrategy | None

    def message(
        self,
        key: bytes,
        arguments: m.Value,
        slots: list[m.Value],
        restarts: int = 0,
        restoration: m.Restoration | None = None,
    ) -> m.Construct:
        """Return what makes a fresh worker the actor."""
        cls, limit, groups = self.cls, self.options.max_concurrency, dict(self.options.concurrency_groups)
        return m.Construct(key, cls.id, cls.name, arguments, slots, self.identity, limit, groups, restarts, restoration)


class ActorQueue(Struct, eq=False):
    """This process's calls to one actor, and what it knows of it.

    Attributes:
        lifetime: the object that stands for the actor's life; None: it is detached, or known by weak handles only.
        limits: of a concurrent actor, see `ActorId`; empty: calls are sent in order.
        constructor: for the owner: what makes the actor.
        checkpointed, log: whether it comes back with its state; for the owner: what brings it back.
        lineage: whether calls are kept to make lost values again.
        state: as the node has told it last: "pending", "alive", "restarting" or "dead".
        reason, failure: why it is dead or restarting.
        process, connection: where it lives, if it does.
        waiting: calls that are still to be sent, in order.
        inflight: those that were sent and not answered.
        interrupted: those that its process has died with, until the node says what becomes of the actor.
    """

    key: bytes
    name: str
    lifetime: bytes | None
    lineage: bool
    limits: Mapping[str, int]
    constructor: Constructor | None = None
    log: KeptLog | None = None
    checkpointed: bool = False
    state: str = "pending"
    reason: str = ""
    failure: bytes | None = None
    process: bytes | None = None
    connection: Connection | None = None
    waiting: deque[PendingCall] = field(default_factory=deque)
    inflight: dict[bytes, PendingCall] = field(default_factory=dict)
    interrupted: list[PendingCall] = field(default_factory=list)

    def put_back(self, calls: Iterable[PendingCall]) -> None:
        """Have calls made again, in the order in which all were made first: one in front of another whose result it
        waits for would hold that one up for ever."""
        for pending in sorted(calls, key=attrgetter("task"), reverse=True):  # so that each finds its place at the front
            later = (place for place, other in enumerate(self.waiting) if other.task > pending.task)
            self.waiting.insert(next(later, len(self.waiting)), pending)


def _fails_now(queue: ActorQueue, pending: PendingCall) -> bool:
    """Whether a call does not wait for an actor to come back: it may not be made again if that ends once more.

    One that is made again has used up the retries that let it wait.
    """
    return queue.state == "restarting" and pending.retries == 0 and not pending.attempts()


def _group_of(pending: PendingCall) -> str:
    """Return the concurrency group that a call was made for; "": that of no other."""
    told = None if pending.extras is None else pending.extras.told
    return (told.concurrency_group if told is not None else None) or ""


class ActorCalls(CallsActors, Sender):
    """All actors that this process knows, and its calls to them that have not ended.

    Attributes:
        calls: these calls and those of functions.
        queues: the calls to them, by the actor's id.
    """

    def __init__(self, links: Links, values: Values, store: Store, calls: Calls) -> None:
        self._links, self._values, self._store, self.calls = links, values, store, calls
        self.queues: dict[bytes, ActorQueue] = {}

    # Calling ----------------------------------------------------------------------------------------------------

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[Any]:
        """Queue a call; return references to what it will return, or the generator of them.

        Raises:
            InputError: the actor comes back with its state, and a call with these options cannot be logged.
            PendingCallsLimitExceeded: too many calls of this process have not been answered.
        """
        values = self._values
        if actor.checkpointed:
            options.check_checkpoints(f"{actor.class_name}.{method}", True)
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = self._store.pack_arguments(args, kwargs)
        num_returns = options.num_returns
        retries = actor.max_task_retries if options.max_task_retries is None else options.max_task_retries
        if actor.checkpointed:
            retries = -1  # a call runs once whatever happens, so there is no harm in making it again
        with values.lock:
            values.settle_drops()
            queue = self.queues.get(actor.id) or self._watch(actor)
            if actor.max_pending_calls > 0:
                self._check_room(queue, actor, method, packed)
            ids = values.new_ids(max(num_returns, 1))
            refs: list[Any] = [values.new_ref(object_id) for object_id in ids] if num_returns else []
            keeps = [*slots, *inner] if actor.lifetime is None else [actor.lifetime, *slots, *inner]
            pending = PendingCall(ids[0], self, method, None, ids, packed, slots, keeps, retries)
            pending.actor = queue
            self.calls.open[pending.task] = pending
            if not options.is_plain:
                group, window = options.concurrency_group, options.generator_backpressure
                pending.extras = Extras(m.CallExtras(options.name, group, options.retry, window=window))
                if num_returns == STREAMING:
                    refs = [self.calls.open_stream(pending, refs[0])]
            queue.waiting.append(pending)
            if slots:
                self._await_arguments(queue, pending)
            self._pump(queue)
        return refs

    def _check_room(self, queue: ActorQueue, actor: ActorId, method: str, packed: m.Value) -> None:
        if len(queue.waiting) + len(queue.inflight) >= actor.max_pending_calls:
            self._values.free(packed)
            raise too_many_calls(f"{actor.class_name}.{method}", actor.max_pending_calls)

    def _watch(self, actor: ActorId) -> ActorQueue:
        self._links.check()
        actor_id = actor.id  # the actor itself holds its lifetime
        lifetime = None if actor.lifetime is None else actor.lifetime.id
        queue = self.queues[actor_id] = ActorQueue(actor_id, actor.class_name, lifetime, actor.lineage, actor.limits)
        queue.checkpointed = actor.checkpointed
        if lifetime is not None:
            self._values.on_gone[lifetime] = lambda: self.forget(actor_id)
        self._links.node.send(m.WatchActor(actor_id))
        return queue

    def forget(self, actor_id: bytes) -> None:
        """Event: the last handle here is gone, so that the actor may end without this process hearing of it."""
        queue = self.queues.pop(actor_id, None)
        if queue is not None:
            queue.state, queue.reason, queue.connection = "dead", "its last handle is gone", None

    def _pump(self, queue: ActorQueue) -> None:
        waiting = queue.waiting
        if queue.state == "dead":
            while waiting:
                self._fail_dead(queue, waiting.popleft())
            return
        if queue.limits and len(waiting) > 1:
            self._pump_groups(queue)
            return
        while waiting and self._may_go(queue, waiting[0]):
            self._send(queue, waiting.popleft())

    def _pump_groups(self, queue: ActorQueue) -> None:
        """Send what can be sent; one that waits for arguments holds up its group if that runs one call at a time."""
        held: set[str] = set()
        for pending in list(queue.waiting):
            group = _group_of(pending)
            if group in held or pending.task in queue.inflight or pending.task not in self.calls.open:
                continue  # or one before it has failed, and it with that, or it was sent since
            if self._may_go(queue, pending):
                queue.waiting.remove(pending)
                self._send(queue, pending)
            elif queue.limits.get(group, 1) == 1:
                held.add(group)

    def _may_go(self, queue: ActorQueue, pending: PendingCall) -> bool:
        """Whether a call's turn has come: its arguments are there, and so is the actor, or it won't wait."""
        if pending.missing or (queue.connection is None and not _fails_now(queue, pending)):
            return False
        return not (pending.slots and self.calls.lacks_arguments(pending) and self._await_arguments(queue, pending))

    def _await_arguments(self, queue: ActorQueue, pending: PendingCall) -> bool:
        return self.calls.await_arguments(pending, lambda: self._pump(queue))

    def _send(self, queue: ActorQueue, pending: PendingCall) -> None:
        """Send a call whose turn has come; end it if an argument has failed, or it does not wait for the actor."""
        failure = self.calls.failed_argument(pending) if pending.slots else None
        if failure is not None:
            self.calls.fail(pending, failure)
            return
        connection = queue.connection
        if connection is None:
            self._fail_unavailable(
                pending, f"is being restarted (raise max_task_retries to have such calls wait for it): {queue.reason}"
            )
            return
        assert queue.process is not None
        slots: list[m.Value] = []
        if pending.slots or pending.arguments.refs:
            slots = self.calls.arguments_for(queue.process, pending)
        message = m.Call(pending.task, pending.name, pending.arguments, slots, len(pending.returns))
        if pending.extras is not None:
            pending.extras.apply(message)
        if connection.post(message):
            # While the actor is busy there is no hurry: its next reply, at the latest, has this flushed.
            self._links.reactor.flush_soon(connection) if queue.inflight else connection.flush()
        pending.sent = time.monotonic()
        queue.inflight[pending.task] = pending

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        with self._links.lock:
            self._links.check()
            self._links.node.send(m.KillActor(actor.id, no_restart))
            queue = self.queues.get(actor.id)
            if queue is not None:
                queue.connection = None  # what we call from now on must not reach it while it is being killed
                if no_restart:
                    self.on_state(m.ActorState(actor.id, "dead", None, "it was killed by kill()"))

    def state(self, actor: ActorId) -> ActorState:
        queue = self.queues.get(actor.id)
        if queue is not None and queue.state == "dead":
            return "dead"
        return "restarting" if queue is not None and queue.state == "restarting" else "alive"

    def forget_constructor(self, queue: ActorQueue) -> None:
        """Forget what makes the actor: it will not be made again."""
        if queue.log is not None:
            queue.log.end()
            queue.log = None
        if queue.constructor is not None:
            pending, queue.constructor = queue.constructor.arguments, None
            self.calls.finish(pending, [m.Value(b"")])

    def has_sent(self, pending: PendingCall) -> bool:
        return pending.task in pending.actor.inflight

    def withdraw(self, pending: PendingCall) -> bool:
        queue = pending.actor
        if self.has_sent(pending):
            return False
        (queue.interrupted if pending in queue.interrupted else queue.waiting).remove(pending)
        self._pump(queue)
        return True

    def tell(self, pending: PendingCall, message: m.Message) -> None:
        queue = pending.actor
        if queue.connection is not None and self.has_sent(pending):
            queue.connection.send(message)

    # Events -----------------------------------------------------------------------------------------------------

    def on_reply(self, peer: Connection, pending: PendingCall, message: m.Reply) -> None:
        queue = pending.actor
        del queue.inflight[message.task]
        if queue.log is not None:
            queue.log.ran(pending)
        if pending.is_interrupted:
            self.resubmit(pending)
        else:
            self.calls.finish(pending, message.values, peer.peer, message.seconds)

    def on_try_again(self, pending: PendingCall, failure: m.Value) -> None:
        queue = pending.actor
        del queue.inflight[pending.task]
        if pending.use_retry():
            self._links.note((time.monotonic(), AGAIN, pending.task, "it raised an exception"))
            queue.put_back([pending])
            self._pump(queue)
        else:
            self.calls.give_up(pending, failure)

    def on_argument_lost(self, pending: PendingCall, message: m.ArgumentLost) -> None:
        del pending.actor.inflight[message.task]
        if self.calls.make_arguments_again(pending, message.span):
            self.resubmit(pending)

    def resubmit(self, pending: PendingCall) -> None:
        queue = pending.actor
        assert queue is not None
        self.calls.open[pending.task] = pending
        queue.put_back([pending])
        if pending.slots:
            self._await_arguments(queue, pending)
        self._pump(queue)

    def on_death(self, process: bytes, reason: str) -> None:
        """Event: a process is dead."""
        for queue in list(self.queues.values()):  # what it held is gone: as we go on, actors may be released
            if queue.process == process:
                queue.interrupted = list(queue.inflight.values())
                queue.inflight, queue.process, queue.connection = {}, None, None
                if queue.state == "dead":
                    self._settle_interrupted(queue)

    def on_state(self, message: m.ActorState) -> None:
        """Event: an actor has changed."""
        queue = self.queues.get(message.actor)
        if queue is None or queue.state == "dead":
            return
        queue.state, queue.reason, queue.failure = message.state, message.reason, message.failure
        self._settle_interrupted(queue)
        if message.process is not None:
            queue.process = message.process
            queue.connection = self._links.peer(message.process)
        if queue.state == "dead":
            self.forget_constructor(queue)
        self._pump(queue)

    def _fail_unavailable(self, pending: PendingCall, what: str) -> None:
        error = ActorUnavailableError(f"{pending.actor.name}.{pending.name}: the actor {what}")
        self.calls.fail(pending, failure(error))

    def _settle_interrupted(self, queue: ActorQueue) -> None:
        """Decide about the calls that were under way when the actor's process died."""
        again = []
        for pending in queue.interrupted:
            if pending.cancelled:
                self.calls.cancel(pending)
            elif queue.state == "dead":
                self._fail_dead(queue, pending)
            elif pending.use_retry():
                again.append(pending)
                self._links.note((time.monotonic(), AGAIN, pending.task, queue.reason))
            else:
                self._fail_unavailable(
                    pending,
                    f"crashed before it answered{pending.attempts()}, and is being restarted "
                    f"(raise max_task_retries to have such calls made again by themselves): {queue.reason}",
                )
        queue.interrupted = []
        queue.put_back(again)

    def _fail_dead(self, queue: ActorQueue, pending: PendingCall) -> None:
        error = died(f"{queue.name}.{pending.name}", ActorId(queue.key, None, queue.name), queue.reason, None)
        if queue.failure is not None and is_own(queue.failure, RuntimeEnvSetupError):
            value = m.Value(queue.failure, failed=True)
        else:
            value = m.Value(pack_error(error, queue.failure), failed=True)
        self.calls.fail(pending, value)
