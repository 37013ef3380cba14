"""Actors that this process creates or finds by name.

The process that creates an actor owns it: it keeps the constructor's arguments and sends them to each process that
the node starts for the actor, the first and those after a crash. A detached actor outlives its creator, so there the
node keeps them, and they must contain all that they need.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from ... import serialization
from ...engine import ActorId, Arguments, Function
from ...exceptions import InputError
from ...failure import pack_error, words_of
from ...options import ActorOptions, MethodOptions
from ...refs import ObjectRef
from ...results import name_taken
from ...serialization import take_out_refs
from ..protocol import messages as m
from ..store.views import StaleBlockError
from .actor_calls import ActorCalls
from .actor_links import Constructor, Link
from .calls import Pending, arguments_lost, await_slots, failed_slot, slot_values
from .client import Client
from .environments import Environments
from .group_calls import GroupCalls
from .log_keeper import KeptLog
from .reactor import Waiter

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


class Actors:
    """The actors that this process owns."""

    def __init__(self, client: Client, calls: ActorCalls, environments: Environments, groups: GroupCalls) -> None:
        self._client, self._calls, self._environments, self._groups = client, calls, environments, groups
        client.handlers[m.StartActor] = lambda node, message: self._on_start(message)

    # Creating ---------------------------------------------------------------------------------------------------

    def create(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        """Start an actor, once its arguments are there; returns at once.

        Raises:
            InputError: a living actor has that name, no node can ever run it, or it is to be detached and its arguments
                contain references.
        """
        client = self._client
        demand, strategy = options.demand, self._groups.strategy_of(options.scheduling_strategy)
        with client.lock:
            placement = self._groups.place(f"actor {cls.name}", demand, strategy)
        environment = self._environments.of(options.runtime_env)
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = client.store.pack_arguments(args, kwargs)
        if options.detached and (inner or cls.captured):
            self._discard(packed)
            raise InputError(f"detached actor {cls.name}: its arguments {_BOUND}")
        key = os.urandom(8)
        with client.lock:
            client.check()
            client.settle_drops()
            [lifetime_id] = client.new_ids(1)
            lifetime = None if options.detached else client.new_ref(lifetime_id)
            if lifetime is not None:
                client.objects.fulfil(lifetime_id, m.Value(b""))  # for those who ask whether it is there: see `_adopt`
        actor = ActorId.of(key, lifetime, cls, methods, options)
        namespace = options.namespace or client.job.namespace
        identity = pack_identity(actor, options.name, namespace)
        declared = m.CreateActor(
            key, cls.name, demand, options.max_restarts, False, client.job, environment, placement, options.detached
        )
        if options.name is not None:
            try:
                reserve = m.ReserveName(declared, namespace, options.name, identity)
                living = self._reserve(reserve, options.get_if_exists)
            except BaseException:  # an interrupt, too: what was asked for until then must not stay
                client.node.send(m.WithdrawActor(key))
                self._discard(packed)
                raise
            if living is not None:
                self._discard(packed)
                return living
        pending = Pending(cls.name, cls, [lifetime_id], packed, slots, [*slots, *inner, *cls.captured], 0)
        with client.lock:
            link = pending.link = self._calls.links[key] = Link(
                key, cls.name, None if lifetime is None else lifetime.id, options.lineage, actor.limits
            )
            link.constructor = Constructor(cls, options, pending, identity, strategy)
            if options.checkpoint_every:
                link.checkpointed, link.log = True, KeptLog(client, options.checkpoint_every)
            if lifetime is not None:
                client.on_gone[lifetime_id] = lambda: self._released(link)
            if slots and options.name is None:
                # Declared at once: others may get its handle, and ask the node for it, before the arguments are there.
                client.node.send(declared)
            if not slots or not await_slots(client, pending, lambda: self._start(link, declared)):
                self._start(link, declared)
        return actor

    def _reserve(self, question: m.ReserveName, get_if_exists: bool) -> ActorId | None:
        """Reserve an actor's name; return the living actor that has it, if that will do.

        Raises:
            InputError: a living actor has that name.
        """
        while (taken_by := self._client.ask_node(question).taken_by) is not None:
            if not get_if_exists:
                raise name_taken(question.name)
            living = self._adopt(taken_by)
            if living is not None:
                return living
        return None

    def _discard(self, packed: m.Value) -> None:
        with self._client.lock:
            self._client.objects.discard(packed)
            self._client.act()

    def _start(self, link: Link, declared: m.CreateActor) -> None:
        constructor = link.constructor
        if constructor is None:
            return  # killed or released while its arguments were awaited
        failure = failed_slot(self._client, constructor.arguments)
        if failure is None and declared.detached:
            failure = self._keep(constructor, declared)
        declared.ready, declared.spread = True, constructor.strategy == "SPREAD"
        if failure is None:
            self._client.node.send(declared)
        else:
            assert isinstance(failure.stream, bytes)
            reason = f"an argument of its constructor failed: {words_of(failure.stream)}"
            self._client.node.send(m.ActorFailed(link.key, reason, failure.stream))
            self._calls.on_state(m.ActorState(link.key, "dead", None, reason, failure.stream))
        if declared.detached:
            self._calls.forget_constructor(link)

    def _keep(self, constructor: Constructor, declared: m.CreateActor) -> m.Value | None:
        """Make the node able to make a detached actor by itself; return the failure if that cannot be done."""
        client, pending = self._client, constructor.arguments
        values = [client.objects.records[ref.id].value for ref in pending.slots]
        if any(value is not None and value.refs for value in values):
            error = InputError(f"detached actor {pending.name}: objects among its arguments {_BOUND}")
            return m.Value(pack_error(error), failed=True)
        try:
            slots = [client.store.inlined(value) for value in values if value is not None]
            arguments = client.store.inlined(pending.arguments)
        except StaleBlockError:
            return m.Value(pack_error(arguments_lost(pending)), failed=True)
        message = constructor.message(declared.actor, arguments, slots, 0)
        assigned = self._groups.assignment(constructor.options.demand, [], constructor.strategy)
        function = m.Function(constructor.cls.id, constructor.cls.payload)
        declared.kept = m.KeptConstructor(assigned, function, message)
        return None

    def on_argument_lost(self, process: bytes, message: m.ArgumentLost) -> None:
        """Event: a constructor could not read an argument, and waits."""
        link = self._calls.links.get(message.task)
        if link is None or link.constructor is None:
            return
        pending = link.constructor.arguments
        if not self._client.recovery.lost_argument(pending, message.span):
            pending.arguments = m.Value(pack_error(arguments_lost(pending)), failed=True)

        self._construct(m.StartActor(message.task, process, message.restarts, []))

    def _on_start(self, message: m.StartActor) -> None:
        link = self._calls.links.get(message.actor)
        connection = self._client.peer(message.process)
        if link is not None and link.constructor is not None and connection is not None:
            demand, strategy = link.constructor.options.demand, link.constructor.strategy
            connection.post(self._groups.assignment(demand, message.gpus, strategy))
            self._construct(message)

    def _construct(self, message: m.StartActor) -> None:
        link = self._calls.links.get(message.actor)
        connection = self._client.peer(message.process)
        if link is None or link.constructor is None or connection is None:
            return  # released or dead meanwhile; the node knows
        constructor, log = link.constructor, link.log
        for needed in (constructor.arguments, *(() if log is None else log.own_calls())):
            if needed.slots and await_slots(self._client, needed, lambda: self._resume(message.actor)):
                # An argument was lost, and is being made again: perhaps with the very resources that the actor has.
                self._client.node.send(m.PostponeActor(message.actor, message.process))
                return
        slots = slot_values(self._client, constructor.arguments, message.process)
        lost = [failure for call in (log.own_calls() if log else ()) if (failure := failed_slot(self._client, call))]
        # A call that cannot be run again: neither can the actor.
        arguments = lost[0] if lost else constructor.arguments.arguments
        restoration = None if log is None else log.restoration(message.process)
        connection.send(m.Function(constructor.cls.id, constructor.cls.payload))
        connection.send(constructor.message(message.actor, arguments, slots, message.restarts, restoration))

    def _resume(self, actor: bytes) -> None:
        link = self._calls.links.get(actor)
        if link is not None and link.constructor is not None:
            self._client.node.send(m.ResumeActor(actor))

    def _released(self, link: Link) -> None:
        # Whatever waits for the actor holds a reference to its lifetime, so nothing does.
        self._client.node.send(m.ActorReleased(link.key))
        self._calls.forget(link.key)
        self._calls.forget_constructor(link)

    # Finding ----------------------------------------------------------------------------------------------------

    def find(self, name: str, namespace: str | None) -> ActorId | None:
        """Return a weak handle of the living actor of that name, in this job's namespace or another."""
        with self._client.lock:
            self._client.settle_drops()
        question = m.FindActor(namespace or self._client.job.namespace, name)
        while (identity := self._client.ask_node(question).identity) is not None:
            living = self._adopt(identity)
            if living is not None:
                return replace(living, lifetime=None)
        return None

    def names(self) -> list[tuple[str, str]]:
        """Return the namespaces and names of all named actors that live."""
        with self._client.lock:
            self._client.settle_drops()
        return self._client.ask_node(m.ListNames()).names

    def _adopt(self, identity: bytes) -> ActorId | None:
        """Return an actor that was found by name; None if its last handle was gone before.

        Then its owner has told the node, or is dead: asked again, the node does not name it any more.
        """
        actor, lifetime_id, _, _ = unpack_identity(identity)
        if lifetime_id is None:
            return actor
        lifetime = self._client.borrow(lifetime_id)
        return replace(actor, lifetime=lifetime) if self._is_there(lifetime) else None

    def _is_there(self, lifetime: ObjectRef) -> bool:
        """Wait until its owner has answered: the value, or that the object was gone before it was borrowed."""
        client, waiter = self._client, Waiter()
        with client.lock:
            client.check()
            record = client.record_of(lifetime, waiter.finish)
            if record.value is not None:
                waiter.finish()
        # The owner answers whatever it computes: this is like a question to the node, and gives no CPU back.
        client.reactor.wait(waiter)
        client.check()
        return record.value is not None and not record.value.failed
