"""Actors of this process, and calls of actors' methods: one ordered queue per actor, straight to its process.

The process that creates an actor owns it: it keeps the constructor's arguments and sends them to each process that
the node starts for the actor, the first and those after a crash.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator

import msgspec

from ..engine import ActorId, Arguments, Function
from ..exceptions import ActorUnavailableError, InputError, RuntimeEnvSetupError
from ..failure import pack_error, unpack_exception
from ..options import ActorOptions
from ..refs import ObjectRef
from ..reports import TaskReport
from ..resources import check_feasible
from ..serial import died
from ..serialization import take_out_refs
from . import messages as m
from .call_reports import call_groups, call_rows
from .calls import Pending
from .client import Client
from .connection import Connection
from .environments import Environments
from .objects import owner_of
from .task_calls import await_slots, failed_slot, finish, slot_values


class _Handle(msgspec.Struct, array_like=True):
    """What makes a handle out of a name."""

    actor: bytes
    lifetime: bytes
    class_name: str
    num_returns: dict[str, int]
    max_task_retries: int


class _Constructor:
    """For the owner: what makes the actor, as often as it must be made."""

    __slots__ = ("arguments", "cls", "options")

    def __init__(self, cls: Function, options: ActorOptions, arguments: Pending) -> None:
        self.cls, self.options, self.arguments = cls, options, arguments


class Link:
    """This process's line to one actor."""

    __slots__ = (
        "connection",
        "constructor",
        "failure",
        "inflight",
        "interrupted",
        "key",
        "name",
        "process",
        "queue",
        "reason",
        "state",
    )

    def __init__(self, key: bytes, name: str, constructor: _Constructor | None = None) -> None:
        self.key = key
        self.name = name
        self.constructor = constructor
        self.state = "pending"
        self.reason = ""
        self.failure: bytes | None = None
        self.process: bytes | None = None
        self.connection: Connection | None = None
        self.queue: deque[Pending] = deque()
        self.inflight: dict[bytes, Pending] = {}
        self.interrupted: list[Pending] = []


class ActorCalls:
    """All actors that this process knows, and its calls to them that have not ended."""

    def __init__(self, client: Client, environments: Environments) -> None:
        self._client = client
        self._environments = environments
        self._links: dict[bytes, Link] = {}
        self._running: dict[bytes, Link] = {}
        client.handlers[m.StartActor] = self._on_start
        client.handlers[m.ActorState] = lambda node, message: self._on_state(message)
        client.on_death.append(self._on_death)

    # Creating and finding ---------------------------------------------------------------------------------------

    def create(
        self, cls: Function, arguments: Arguments, options: ActorOptions, num_returns: dict[str, int]
    ) -> ActorId:
        """Have the node start an actor as soon as the arguments are there; returns at once.

        Raises:
            InputError: a living actor has that name, or no node can ever run it.
        """
        client = self._client
        demand = options.demand()
        check_feasible(f"actor {cls.name}", demand, client.resources)
        environment = self._environments.of(options.runtime_env)
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = client.store.pack_arguments(args, kwargs)
        key = os.urandom(8)
        with client.lock:
            client.check()
            client.settle_drops()
            lifetime = client.new_ref(client.new_ids(1)[0])
        actor = ActorId(key, lifetime, cls.name, num_returns, options.max_task_retries)
        if options.name is not None and not self._reserve(options.name, actor):
            with client.lock:
                client.objects.discard(packed)
                client.act()
            raise InputError(
                f"an actor named {options.name!r} is alive. Use get_actor({options.name!r}) or another name"
            )
        pending = Pending(cls.name, cls, [lifetime.id], packed, slots, [*slots, *inner, *cls.captured], 0)
        with client.lock:
            link = self._links[key] = Link(key, cls.name, _Constructor(cls, options, pending))
            client.on_gone[lifetime.id] = lambda: self._released(link)
            if slots:
                # Declared at once: others may get its handle, and ask the node for it, before the arguments are there.
                client.node.send(m.CreateActor(key, cls.name, demand, options.max_restarts, False, environment))
            start = m.CreateActor(key, cls.name, demand, options.max_restarts, True, environment)
            if not slots or not await_slots(client, pending, lambda: self._start(link, start)):
                self._start(link, start)
        return actor

    def _reserve(self, name: str, actor: ActorId) -> bool:
        handle = _Handle(actor.id, actor.lifetime.id, actor.class_name, actor.num_returns, actor.max_task_retries)
        return self._client.ask_node(m.ReserveName(actor.id, name, msgspec.msgpack.encode(handle))).accepted

    def _start(self, link: Link, message: m.CreateActor) -> None:
        if link.constructor is None:
            return  # killed or released while its arguments were awaited
        failure = failed_slot(self._client, link.constructor.arguments)
        if failure is None:
            self._client.node.send(message)
            return
        assert isinstance(failure.stream, bytes)
        reason = "an argument of its constructor failed"
        self._client.node.send(m.ActorFailed(link.key, reason, failure.stream))
        self._on_state(m.ActorState(link.key, "dead", None, reason, failure.stream))

    def _on_start(self, node: Connection, message: m.StartActor) -> None:
        link = self._links.get(message.actor)
        connection = self._client.peer(message.process)
        if link is None or link.constructor is None or connection is None:
            return  # released or dead meanwhile; the node knows
        cls, pending = link.constructor.cls, link.constructor.arguments
        slots = slot_values(self._client, pending, message.process)
        connection.send(m.Function(cls.id, cls.payload))
        connection.send(m.Construct(message.actor, cls.id, cls.name, pending.arguments, slots))

    def _released(self, link: Link) -> None:
        # Whatever waits for the actor holds a reference to its lifetime, so nothing does.
        self._client.node.send(m.ActorReleased(link.key))
        del self._links[link.key]
        self._forget_constructor(link)

    def _forget_constructor(self, link: Link) -> None:
        if link.constructor is not None:
            pending, link.constructor = link.constructor.arguments, None
            finish(self._client, pending, [m.Value(b"")])

    def find(self, name: str) -> ActorId | None:
        """Return the living actor of that name."""
        client = self._client
        with client.lock:
            client.settle_drops()
        found = client.ask_node(m.FindActor(name)).handle
        if found is None:
            return None
        handle = msgspec.msgpack.decode(found, type=_Handle)
        with client.lock:
            owner = owner_of(handle.lifetime)
            peer = None if owner == client.me else client.peer(owner)
            if peer is not None:
                # Nobody lent us this reference, so we lend it to ourselves.
                peer.send(m.Lend(handle.lifetime, client.me))
            lifetime = client.adopt(handle.lifetime, given=0 if owner == client.me else 1)
        return ActorId(handle.actor, lifetime, handle.class_name, handle.num_returns, handle.max_task_retries)

    # Calling ----------------------------------------------------------------------------------------------------

    def call(self, actor: ActorId, method: str, arguments: Arguments, num_returns: int) -> list[ObjectRef]:
        """Queue a call; return references to what it will return."""
        client = self._client
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = client.store.pack_arguments(args, kwargs)
        with client.lock:
            client.settle_drops()
            ids = client.new_ids(num_returns or 1)
            refs = [client.new_ref(object_id) for object_id in ids] if num_returns else []
            keeps = [actor.lifetime, *slots, *inner]
            pending = Pending(method, None, ids, packed, slots, keeps, actor.max_task_retries)
            link = self._links.get(actor.id) or self._watch(actor)
            link.queue.append(pending)
            if slots:
                await_slots(client, pending, lambda: self._pump(link))
            self._pump(link)
        return refs

    def _watch(self, actor: ActorId) -> Link:
        self._client.check()
        actor_id = actor.id  # the actor itself holds its lifetime
        link = self._links[actor_id] = Link(actor_id, actor.class_name)
        self._client.on_gone[actor.lifetime.id] = lambda: self._links.pop(actor_id, None)
        self._client.node.send(m.WatchActor(actor_id))
        return link

    def _pump(self, link: Link) -> None:
        queue = link.queue
        if link.state == "dead":
            while queue:
                self._fail_dead(link, queue.popleft())
            return
        while queue and link.connection is not None and queue[0].missing == 0:
            pending = queue.popleft()
            failure = failed_slot(self._client, pending) if pending.slots else None
            if failure is None:
                self._send(link, link.connection, pending)
            else:
                finish(self._client, pending, [failure] * len(pending.returns))

    def _send(self, link: Link, connection: Connection, pending: Pending) -> None:
        client = self._client
        assert link.process is not None
        slots: list[m.Value] = []
        if pending.slots or pending.arguments.refs:
            slots = slot_values(client, pending, link.process)
        message = m.Call(pending.task, pending.name, pending.arguments, slots, len(pending.returns))
        if connection.post(message):
            # While the actor is busy there is no hurry: its next reply, at the latest, has this flushed.
            client.reactor.flush_soon(connection) if link.inflight else connection.flush()
        pending.sent = time.monotonic()
        link.inflight[pending.task] = pending
        self._running[pending.task] = link

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """End an actor at once."""
        with self._client.lock:
            self._client.check()
            self._client.node.send(m.KillActor(actor.id, no_restart))
            link = self._links.get(actor.id)
            if link is not None:
                link.connection = None  # what we call from now on must not reach it while it is being killed
                if no_restart:
                    self._on_state(m.ActorState(actor.id, "dead", None, "it was killed by kill()"))

    def report(self) -> Iterator[TaskReport]:
        """Yield a row for each call that has not ended, and for each actor that has not started."""
        return call_rows(self._client, self._links.values())

    def report_groups(self) -> Iterator[TaskReport]:
        """Yield the same, counted by actor, method and state."""
        return call_groups(self._links.values())

    # Events -----------------------------------------------------------------------------------------------------

    def on_reply(self, peer: Connection, message: m.Reply) -> bool:
        """Event: a call has ended. False if it is not one of ours."""
        link = self._running.pop(message.task, None)
        if link is None:
            return False
        finish(self._client, link.inflight.pop(message.task), message.values, peer.peer)
        return True

    def _on_death(self, process: bytes, reason: str) -> None:
        for link in self._links.values():
            if link.process == process:
                link.interrupted = list(link.inflight.values())
                for task in link.inflight:
                    del self._running[task]
                link.inflight, link.process, link.connection = {}, None, None
                if link.state == "dead":
                    self._settle_interrupted(link)

    def _on_state(self, message: m.ActorState) -> None:
        link = self._links.get(message.actor)
        if link is None or link.state == "dead":
            return
        link.state, link.reason, link.failure = message.state, message.reason, message.failure
        self._settle_interrupted(link)
        if message.process is not None:
            link.process = message.process
            link.connection = self._client.peer(message.process)
        if link.state == "dead":
            self._forget_constructor(link)
        self._pump(link)

    def _settle_interrupted(self, link: Link) -> None:
        """Decide about the calls that were under way when the actor's process died."""
        again = []
        for pending in link.interrupted:
            if link.state == "dead":
                self._fail_dead(link, pending)
            elif pending.use_retry():
                again.append(pending)
            else:
                call = f"{link.name}.{pending.name}"
                error = ActorUnavailableError(
                    f"{call}: the actor crashed before it answered and is being restarted: {link.reason}. "
                    "Raise max_task_retries to have such calls made again by themselves"
                )
                finish(self._client, pending, [m.Value(pack_error(error), failed=True)] * len(pending.returns))
        link.interrupted = []
        link.queue.extendleft(reversed(again))

    def _fail_dead(self, link: Link, pending: Pending) -> None:
        actor = ActorId(link.key, None, link.name)  # type: ignore[arg-type]
        error = died(f"{link.name}.{pending.name}", actor, link.reason, None)
        if link.failure is not None and isinstance(unpack_exception(link.failure), RuntimeEnvSetupError):
            value = m.Value(link.failure, failed=True)
        else:
            value = m.Value(pack_error(error, link.failure), failed=True)
        finish(self._client, pending, [value] * len(pending.returns))
