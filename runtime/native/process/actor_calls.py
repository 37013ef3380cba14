"""Calls of actors' methods: one ordered queue per actor, straight to its process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ...engine import ActorId, ActorState, Arguments
from ...exceptions import ActorUnavailableError, RuntimeEnvSetupError
from ...failure import is_own, pack_error
from ...introspection.reports import TaskReport
from ...introspection.story_events import AGAIN
from ...options import STREAMING, MethodOptions
from ...results import died, too_many_calls
from ...serialization import take_out_refs
from ..protocol import messages as m
from ..protocol.connection import Connection
from .actor_links import Link
from .call_reports import call_groups, call_rows
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
    slot_values,
)
from .client import Client
from .log_keeper import handle_logs
from .streams import open_stream


def _fails_now(link: Link, pending: Pending) -> bool:
    """Return whether a call does not wait for an actor to come back: it may not be made again if that ends once more.

    One that is made again has used up the retries that let it wait.
    """
    return link.state == "restarting" and pending.retries == 0 and not pending.attempts()


class ActorCalls:
    """All actors that this process knows, and its calls to them that have not ended.

    Attributes:
        links: the lines to them, by the actor's id.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.links: dict[bytes, Link] = {}
        client.handlers[m.ActorState] = lambda node, message: self.on_state(message)
        client.on_death.append(self._on_death)
        client.recovery.resubmit_call = self._resubmit
        handle_logs(client, self.links)

    # Calling ----------------------------------------------------------------------------------------------------

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[Any]:
        """Queue a call; return references to what it will return, or the generator of them.

        Raises:
            PendingCallsLimitExceeded: too many calls of this process have not been answered.
        """
        client = self._client
        args, kwargs, slots = take_out_refs(*arguments)
        packed, inner = client.store.pack_arguments(args, kwargs)
        num_returns = options.num_returns
        retries = actor.max_task_retries if options.max_task_retries is None else options.max_task_retries
        if actor.checkpointed:
            retries = -1  # a call runs once whatever happens, so there is no harm in making it again
        with client.lock:
            client.settle_drops()
            link = self.links.get(actor.id) or self._watch(actor)
            if actor.max_pending_calls > 0:
                self._check_room(link, actor, method, packed)
            ids = client.new_ids(max(num_returns, 1))
            refs: list[Any] = [client.new_ref(object_id) for object_id in ids] if num_returns else []
            keeps = [*slots, *inner] if actor.lifetime is None else [actor.lifetime, *slots, *inner]
            pending = Pending(method, None, ids, packed, slots, keeps, retries)
            pending.link = link
            client.calls[pending.task] = pending
            if not options.is_plain:
                options.check_checkpoints(f"{actor.class_name}.{method}", actor.checkpointed)
                pending.extras = Extras.of_method(options)
                if num_returns == STREAMING:
                    refs = [open_stream(client, pending, refs[0], self)]
            link.queue.append(pending)
            if slots:
                self._await_slots(link, pending)
            self._pump(link)
        return refs

    def _check_room(self, link: Link, actor: ActorId, method: str, packed: m.Value) -> None:
        if len(link.queue) + len(link.inflight) >= actor.max_pending_calls:
            self._client.objects.discard(packed)
            self._client.act()
            raise too_many_calls(f"{actor.class_name}.{method}", actor.max_pending_calls)

    def _watch(self, actor: ActorId) -> Link:
        self._client.check()
        actor_id = actor.id  # the actor itself holds its lifetime
        lifetime = None if actor.lifetime is None else actor.lifetime.id
        link = self.links[actor_id] = Link(actor_id, actor.class_name, lifetime, actor.lineage, actor.limits)
        link.checkpointed = actor.checkpointed
        if lifetime is not None:
            self._client.on_gone[lifetime] = lambda: self.forget(actor_id)
        self._client.node.send(m.WatchActor(actor_id))
        return link

    def forget(self, actor_id: bytes) -> None:
        """Event: the last handle here is gone, so that the actor may end without this process hearing of it."""
        link = self.links.pop(actor_id, None)
        if link is not None:
            link.state, link.reason, link.connection = "dead", "its last handle is gone", None

    def _pump(self, link: Link) -> None:
        queue = link.queue
        if link.state == "dead":
            while queue:
                self._fail_dead(link, queue.popleft())
            return
        if link.limits and len(queue) > 1:
            self._pump_groups(link)
            return
        while queue and self._may_go(link, queue[0]):
            self._dispatch(link, queue.popleft())

    def _pump_groups(self, link: Link) -> None:
        """Send what can be sent; who waits for arguments holds up its group if that runs one call at a time."""
        held: set[str] = set()
        for pending in list(link.queue):
            group = pending.group
            if group in held:
                continue
            if self._may_go(link, pending):
                link.queue.remove(pending)
                self._dispatch(link, pending)
            elif link.limits.get(group, 1) == 1:
                held.add(group)

    def _may_go(self, link: Link, pending: Pending) -> bool:
        """Return whether a call's turn has come: its arguments are there, and so is the actor, or it won't wait."""
        if pending.missing or (link.connection is None and not _fails_now(link, pending)):
            return False
        return not (pending.slots and has_lost_slot(self._client, pending) and self._await_slots(link, pending))

    def _await_slots(self, link: Link, pending: Pending) -> bool:
        return await_slots(self._client, pending, lambda: self._pump(link))

    def _dispatch(self, link: Link, pending: Pending) -> None:
        failure = failed_slot(self._client, pending) if pending.slots else None
        if failure is not None:
            finish(self._client, pending, [failure] * len(pending.returns))
        elif link.connection is not None:
            self._send(link, link.connection, pending)
        else:
            self._fail_unavailable(
                pending, f"is being restarted: {link.reason}. Raise max_task_retries to have such calls wait for it"
            )

    def _send(self, link: Link, connection: Connection, pending: Pending) -> None:
        client = self._client
        assert link.process is not None
        slots: list[m.Value] = []
        if pending.slots or pending.arguments.refs:
            slots = slot_values(client, pending, link.process)
        message = m.Call(pending.task, pending.name, pending.arguments, slots, len(pending.returns))
        if pending.extras is not None:
            pending.extras.apply(message)
        if connection.post(message):
            # While the actor is busy there is no hurry: its next reply, at the latest, has this flushed.
            client.reactor.flush_soon(connection) if link.inflight else connection.flush()
        pending.sent = time.monotonic()
        link.inflight[pending.task] = pending

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """End an actor at once."""
        with self._client.lock:
            self._client.check()
            self._client.node.send(m.KillActor(actor.id, no_restart))
            link = self.links.get(actor.id)
            if link is not None:
                link.connection = None  # what we call from now on must not reach it while it is being killed
                if no_restart:
                    self.on_state(m.ActorState(actor.id, "dead", None, "it was killed by kill()"))

    def state(self, actor: ActorId) -> ActorState:
        """Return how an actor is, as far as this process has heard."""
        link = self.links.get(actor.id)
        if link is not None and link.state == "dead":
            return "dead"
        return "restarting" if link is not None and link.state == "restarting" else "alive"

    def forget_constructor(self, link: Link) -> None:
        """Let go of what makes the actor: it will not be made again."""
        if link.log is not None:
            link.log.end()
            link.log = None
        if link.constructor is not None:
            pending, link.constructor = link.constructor.arguments, None
            finish(self._client, pending, [m.Value(b"")])

    def report(self) -> Iterator[TaskReport]:
        """Yield a row for each call that has not ended, and for each actor that has not started."""
        return call_rows(self._client, self.links.values())

    def report_groups(self) -> Iterator[TaskReport]:
        """Yield the same, counted by actor, method and state."""
        return call_groups(self.links.values())

    def has_sent(self, pending: Pending) -> bool:
        """Return whether the actor has the call."""
        return pending.task in pending.link.inflight

    def withdraw(self, pending: Pending) -> bool:
        """Take a call out of its queue; False if it was sent to the actor already."""
        link = pending.link
        if self.has_sent(pending):
            return False
        (link.interrupted if pending in link.interrupted else link.queue).remove(pending)
        self._pump(link)
        return True

    def tell(self, pending: Pending, message: m._Message) -> None:
        """Send a message to the actor, if it has the call."""
        link = pending.link
        if link.connection is not None and self.has_sent(pending):
            link.connection.send(message)

    # Events -----------------------------------------------------------------------------------------------------

    def on_reply(self, peer: Connection, pending: Pending, message: m.Reply) -> None:
        """Event: a call has ended."""
        link = pending.link
        del link.inflight[message.task]
        if link.log is not None:
            link.log.ran(pending)
        if pending.is_interrupted:
            self._resubmit(pending)
        else:
            finish(self._client, pending, message.values, peer.peer, message.seconds)

    def on_try_again(self, pending: Pending, failure: m.Value) -> None:
        """Event: a call has raised an exception after which it is to be made again."""
        link = pending.link
        del link.inflight[pending.task]
        if pending.use_retry():
            self._client.note((time.monotonic(), AGAIN, pending.task, "it raised an exception"))
            link.queue.appendleft(pending)
            self._pump(link)
        else:
            give_up(self._client, pending, failure)

    def on_argument_lost(self, pending: Pending, message: m.ArgumentLost) -> None:
        """Event: a call could not read an argument and was not run."""
        del pending.link.inflight[message.task]
        if again_with_arguments(self._client, pending, message.span):
            self._resubmit(pending)

    def _resubmit(self, pending: Pending) -> None:
        """Make a call again, before those that wait."""
        link = pending.link
        assert link is not None
        self._client.calls[pending.task] = pending
        link.queue.appendleft(pending)
        if pending.slots:
            self._await_slots(link, pending)
        self._pump(link)

    def _on_death(self, process: bytes, reason: str) -> None:
        for link in self.links.values():
            if link.process == process:
                link.interrupted = list(link.inflight.values())
                link.inflight, link.process, link.connection = {}, None, None
                if link.state == "dead":
                    self._settle_interrupted(link)

    def on_state(self, message: m.ActorState) -> None:
        """Event: an actor has changed."""
        link = self.links.get(message.actor)
        if link is None or link.state == "dead":
            return
        link.state, link.reason, link.failure = message.state, message.reason, message.failure
        self._settle_interrupted(link)
        if message.process is not None:
            link.process = message.process
            link.connection = self._client.peer(message.process)
        if link.state == "dead":
            self.forget_constructor(link)
        self._pump(link)

    def _fail_unavailable(self, pending: Pending, what: str) -> None:
        error = ActorUnavailableError(f"{pending.link.name}.{pending.name}: the actor {what}")
        finish(self._client, pending, [m.Value(pack_error(error), failed=True)] * len(pending.returns))

    def _settle_interrupted(self, link: Link) -> None:
        """Decide about the calls that were under way when the actor's process died."""
        again = []
        for pending in link.interrupted:
            if pending.cancelled:
                finish(self._client, pending, [cancelled(pending)] * len(pending.returns))
            elif link.state == "dead":
                self._fail_dead(link, pending)
            elif pending.use_retry():
                again.append(pending)
                self._client.note((time.monotonic(), AGAIN, pending.task, link.reason))
            else:
                self._fail_unavailable(
                    pending,
                    f"crashed before it answered and is being restarted: {link.reason}. "
                    "Raise max_task_retries to have such calls made again by themselves",
                )
        link.interrupted = []
        link.queue.extendleft(reversed(again))

    def _fail_dead(self, link: Link, pending: Pending) -> None:
        error = died(f"{link.name}.{pending.name}", ActorId(link.key, None, link.name), link.reason, None)
        if link.failure is not None and is_own(link.failure, RuntimeEnvSetupError):
            value = m.Value(link.failure, failed=True)
        else:
            value = m.Value(pack_error(error, link.failure), failed=True)
        finish(self._client, pending, [value] * len(pending.returns))
