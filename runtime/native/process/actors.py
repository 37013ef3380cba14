"""Actors that this process creates or finds by name.

The process that creates an actor owns it: it keeps the constructor's arguments and sends them to each process that
the node starts for the actor, the first and those after a crash. A detached actor outlives its creator, so there the
node keeps them, and they must contain all that they need.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...core.engine import ActorId, Arguments, Function, MakesActors
from ...core.options import ActorOptions, MethodOptions
from ...core.refs import ObjectRef
from ...core.results import name_taken
from ...core.values import serialization
from ...core.values.packed_exceptions import words_of
from ...core.values.serialization import take_out_refs
from ...exceptions import InputError
from ..protocol import messages as m
from ..protocol.connection import Connection
from ..store.store import Store
from ..store.views import StaleBlockError
from .actor_calls import ActorCalls, ActorQueue, Constructor
from .calls import PendingCall
from .environments import Environments
from .failures import arguments_lost, failure
from .group_calls import GroupCalls
from .kept_log import KeptLog
from .links import Links
from .reactor import Waiter
from .values import Values

_BOUND = (
    "contain references to objects, or handles of actors that are not detached: those end with this process, and the "
    "actor may have to be made again after it. Pass values, or handles of detached actors"
)


def pack_identity(actor: ActorId, name: str | None, namespace: str) -> bytes:
    """Return what makes a handle of an actor, with its name, as bytes."""
    lifetime = None if actor.lifetime is None else actor.lifetime.id
    return serialization.dumps((replace(actor, lifetime=None), lifetime, name, namespace))[0]


def unpack_identity(identity: bytes) -> tuple[ActorId, bytes | None, str | None, str]:
    """Return an actor without its lifetime, the id of that, its name and its namespace."""
    return serialization.loads(identity)


class Actors(MakesActors):
    """The actors that this process owns."""

    def __init__(  # noqa: PLR0917  # put together in one place
        self,
        links: Links,
        values: Values,
        store: Store,
        actor_calls: ActorCalls,
        environments: Environments,
        groups: GroupCalls,
    ) -> None:
        self._links, self._values, self._store = links, values, store
        self._calls, self._actor_calls = actor_calls.calls, actor_calls
        self._environments, self._groups = environments, groups

    # Creating ---------------------------------------------------------------------------------------------------

    def create(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        """Start an actor, once its arguments are there; returns at once.

        Raises:
            InputError: a living actor has that name, no node can ever run it, or it is to be detached and its arguments
                contain references.
        """
        demand, strategy = options.demand, self._groups.strategy_of(options.scheduling_strategy)
        with self._links.lock:
            placement = self._groups.place(f"actor {cls.name}", demand, strategy)
        environment = self._environments.of(options.runtime_env)
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = self._store.pack_arguments(args, kwargs)
        if options.detached and (inner or cls.captured):
            self._free(packed)
            raise InputError(f"detached actor {cls.name}: its arguments {_BOUND}")
        key = os.urandom(8)
        lifetime_id, lifetime = self._new_lifetime(options.detached)
        actor = ActorId.of(key, lifetime, cls, methods, options)
        job = self._links.job
        namespace = options.namespace or job.namespace
        identity = pack_identity(actor, options.name, namespace)
        declared = m.CreateActor(
            key, cls.name, demand, options.max_restarts, False, job, environment, placement, options.detached
        )
        if options.name is not None:
            try:
                reserve = m.ReserveName(declared, namespace, options.name, identity)
                living = self._reserve(reserve, options.get_if_exists)
            except BaseException:  # an interrupt, too: what was asked for until then must not stay
                self._links.node.send(m.WithdrawActor(key))
                self._free(packed)
                raise
            if living is not None:
                self._free(packed)
                return living
        keeps = [*slots, *inner, *cls.captured]
        pending = PendingCall(lifetime_id, self._actor_calls, cls.name, cls, [lifetime_id], packed, slots, keeps, 0)
        with self._links.lock:
            queue = pending.actor = self._actor_calls.queues[key] = ActorQueue(
                key, cls.name, None if lifetime is None else lifetime.id, options.lineage, actor.limits
            )
            queue.constructor = Constructor(cls, options, pending, identity, strategy)
            if options.checkpoint_every:
                queue.checkpointed, queue.log = True, KeptLog(self._values, self._calls, options.checkpoint_every)
            if lifetime is not None:
                self._values.on_gone[lifetime_id] = lambda: self._released(queue)
            if slots and options.name is None:
                # Declared at once: others may get its handle, and ask the node for it, before the arguments are there.
                self._links.node.send(declared)
            if not slots or not self._calls.await_arguments(pending, lambda: self._start(queue, declared)):
                self._start(queue, declared)
        return actor

    def _new_lifetime(self, detached: bool) -> tuple[bytes, ObjectRef | None]:
        """Return the object that stands for an actor's life, and the first reference to it; a detached one has none."""
        with self._links.lock:
            self._links.check()
            self._values.settle_drops()
            [lifetime_id] = self._values.new_ids(1)
            lifetime = None if detached else self._values.new_ref(lifetime_id)
            if lifetime is not None:  # for processes that ask whether it is there: see `_adopt`
                self._values.objects.fulfil(lifetime_id, m.Value(b""))
        return lifetime_id, lifetime

    def _reserve(self, question: m.ReserveName, get_if_exists: bool) -> ActorId | None:
        """Reserve an actor's name; return the living actor that has it, if that will do.

        Raises:
            InputError: a living actor has that name.
        """
        while (taken_by := self._links.ask_node(question)) is not None:
            if not get_if_exists:
                raise name_taken(question.name)
            living = self._adopt(taken_by)
            if living is not None:
                return living
        return None

    def _free(self, packed: m.Value) -> None:
        with self._links.lock:
            self._values.free(packed)

    def _start(self, queue: ActorQueue, declared: m.CreateActor) -> None:
        constructor = queue.constructor
        if constructor is None:
            return  # killed or released while its arguments were awaited
        failed = self._calls.failed_argument(constructor.arguments)
        if failed is None and declared.detached:
            failed = self._keep(constructor, declared)
        declared.ready, declared.spread = True, constructor.strategy == "SPREAD"
        if failed is None:
            self._links.node.send(declared)
        else:
            assert isinstance(failed.stream, bytes)
            reason = f"an argument of its constructor failed: {words_of(failed.stream)}"
            self._links.node.send(m.ActorFailed(queue.key, reason, failed.stream))
            self._actor_calls.on_state(m.ActorState(queue.key, "dead", None, reason, failed.stream))
        if declared.detached:
            self._actor_calls.forget_constructor(queue)

    def _keep(self, constructor: Constructor, declared: m.CreateActor) -> m.Value | None:
        """Make the node able to make a detached actor by itself; return the failure if that cannot be done."""
        pending = constructor.arguments
        values = [self._values.objects.records[ref.id].value for ref in pending.slots]
        if any(value is not None and value.refs for value in values):
            error = InputError(f"detached actor {pending.name}: objects among its arguments {_BOUND}")
            return failure(error)
        try:
            slots = [self._store.inlined(value) for value in values if value is not None]
            arguments = self._store.inlined(pending.arguments)
        except StaleBlockError:
            return arguments_lost(pending.name)
        except OSError as error:  # no descriptor is left to read them
            return failure(error)
        message = constructor.message(declared.actor, arguments, slots, 0)
        assigned = self._groups.assignment(constructor.options.demand, [], constructor.strategy)
        function = m.Function(constructor.cls.id, constructor.cls.payload)
        declared.kept = m.KeptConstructor(assigned, function, message)
        return None

    def on_argument_lost(self, peer: Connection, message: m.ArgumentLost) -> None:
        """Event: a process could not read an argument of what it was to run: a call, or a constructor."""
        pending = self._calls.open.get(message.task)
        if pending is None:
            self._on_argument_lost(peer.peer or b"", message)
        else:
            pending.sender.on_argument_lost(pending, message)

    def _on_argument_lost(self, process: bytes, message: m.ArgumentLost) -> None:
        queue = self._actor_calls.queues.get(message.task)
        if queue is None or queue.constructor is None:
            return
        pending = queue.constructor.arguments
        if not self._calls.recovery.lost_argument(pending, message.span):
            pending.arguments = arguments_lost(pending.name)
        self._construct(m.StartActor(message.task, process, message.restarts, []))

    def on_start(self, node: Connection, message: m.StartActor) -> None:
        """Event: the node has a process for an actor of ours."""
        queue = self._actor_calls.queues.get(message.actor)
        connection = self._links.peer(message.process)
        if queue is not None and queue.constructor is not None and connection is not None:
            demand, strategy = queue.constructor.options.demand, queue.constructor.strategy
            connection.post(self._groups.assignment(demand, message.gpus, strategy))
            self._construct(message)

    def _construct(self, message: m.StartActor) -> None:
        queue = self._actor_calls.queues.get(message.actor)
        connection = self._links.peer(message.process)
        if queue is None or queue.constructor is None or connection is None:
            return  # released or dead meanwhile; the node knows
        constructor, log = queue.constructor, queue.log
        for needed in (constructor.arguments, *(() if log is None else log.own_calls())):
            if needed.slots and self._calls.await_arguments(needed, lambda: self._resume(message.actor)):
                # An argument was lost, and is being made again: perhaps with the very resources that the actor has.
                self._links.node.send(m.PostponeActor(message.actor, message.process))
                return
        slots = self._calls.arguments_for(message.process, constructor.arguments)
        lost = [failed for call in (log.own_calls() if log else ()) if (failed := self._calls.failed_argument(call))]
        # A call that cannot be run again: neither can the actor.
        arguments = lost[0] if lost else constructor.arguments.arguments
        restoration = None if log is None else log.restoration(message.process)
        connection.send(m.Function(constructor.cls.id, constructor.cls.payload))
        connection.send(constructor.message(message.actor, arguments, slots, message.restarts, restoration))

    def _resume(self, actor: bytes) -> None:
        queue = self._actor_calls.queues.get(actor)
        if queue is not None and queue.constructor is not None:
            self._links.node.send(m.ResumeActor(actor))

    def _released(self, queue: ActorQueue) -> None:
        # Whatever waits for the actor holds a reference to its lifetime, so nothing does.
        self._links.node.send(m.ActorReleased(queue.key))
        self._actor_calls.forget(queue.key)
        self._actor_calls.forget_constructor(queue)

    # Logs of those that come back with their state --------------------------------------------------------------

    def on_logged(self, peer: Connection, message: m.Logged) -> None:
        log = self._log_of(message.actor)
        if log is not None:
            log.logged(peer, message)
        else:  # the actor was given up meanwhile
            self._values.discard([message.call.arguments, *message.call.slots], peer.peer)

    def on_checkpointed(self, peer: Connection, message: m.Checkpointed) -> None:
        log = self._log_of(message.actor)
        if log is not None:
            log.checkpointed(peer, message)
        else:
            self._values.discard([message.state], peer.peer)

    def on_delivered(self, peer: Connection, message: m.Delivered) -> None:
        log = self._log_of(message.actor)
        if log is not None:
            log.delivered(peer, message)

    def on_death(self, process: bytes, reason: str) -> None:
        """Event: a process is dead."""
        for queue in self._actor_calls.queues.values():
            if queue.log is not None:
                queue.log.caller_died(process)

    def needed_by_logs(self) -> Iterator[m.Span]:
        """Yield the blocks that are needed to bring actors back."""
        return (span for queue in self._actor_calls.queues.values() if queue.log for span in queue.log.spans())

    def _log_of(self, actor: bytes) -> KeptLog | None:
        queue = self._actor_calls.queues.get(actor)
        return None if queue is None else queue.log

    # Finding ----------------------------------------------------------------------------------------------------

    def find(self, name: str, namespace: str | None) -> ActorId | None:
        with self._links.lock:
            self._values.settle_drops()
        question = m.FindActor(namespace or self._links.job.namespace, name)
        while (identity := self._links.ask_node(question)) is not None:
            living = self._adopt(identity)
            if living is not None:
                return replace(living, lifetime=None)
        return None

    def names(self) -> list[tuple[str, str]]:
        with self._links.lock:
            self._values.settle_drops()
        return self._links.ask_node(m.ListNames())

    def _adopt(self, identity: bytes) -> ActorId | None:
        """Return an actor that was found by name; None if its last handle was gone before.

        Then its owner has told the node, or is dead: asked again, the node does not name it any more.
        """
        actor, lifetime_id, _, _ = unpack_identity(identity)
        if lifetime_id is None:
            return actor
        lifetime = self._values.borrow(lifetime_id)
        return replace(actor, lifetime=lifetime) if self._is_there(lifetime) else None

    def _is_there(self, lifetime: ObjectRef) -> bool:
        """Wait until its owner has answered: the value, or that the object was gone before it was borrowed."""
        waiter = Waiter()
        with self._links.lock:
            self._links.check()
            record = self._values.await_value(lifetime, waiter.finish)
            if record.value is not None:
                waiter.finish()
        # The owner answers whatever it computes: this is like a question to the node, and gives no CPU back.
        self._links.reactor.wait(waiter)
        self._links.check()
        return record.value is not None and not record.value.failed
