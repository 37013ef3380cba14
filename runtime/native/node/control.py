"""What all processes share by name: actors, their names, published values (the paper's control store)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ...core.actors.table import Actor, ActorTable, AskResources, Command, EndProcess, Tell
from ...core.ids import node_of
from ...core.reports.events import ACTOR, EVENTS_KEPT, Event
from ...core.reports.rows import ActorState
from ...core.resources.amounts import in_amounts
from ..protocol import messages as m
from .balance import Balance
from .deadlocks import WaitCycles

# Where an actor's state is none of these, it has not been made yet.
_STATES = {"alive": "ALIVE", "dead": "DEAD", "restarting": "RESTARTING"}


class Control:
    """Does what the table of actors asks for, and answers questions.

    Args:
        tell: sends a message to a process, if it lives.
        end_process: ends an actor's process: gracefully, or at once.
        ask_again: has an action done once all that lies in the sockets by now is read.
    """

    def __init__(
        self,
        balance: Balance,
        tell: Callable[[m.ProcessId, m.Message], None],
        end_process: Callable[[m.ProcessId, bool], None],
        ask_again: Callable[[Callable[[], None]], None],
    ) -> None:
        self._balance, self._tell, self._end_process, self._ask_again = balance, tell, end_process, ask_again
        self._actors: ActorTable[m.CreateActor] = ActorTable()
        self._published: dict[str, bytes] = {}
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._cycles = WaitCycles(tell, ask_again)
        self.handlers: dict[type, Callable[..., None]] = {
            **self._cycles.handlers,
            m.ReserveName: self._on_reserve_name,
            m.WithdrawActor: lambda process, message: self._do(
                self._actors.end(message.actor, "its creation was interrupted", forget=True)
            ),
            m.CreateActor: self._on_create_actor,
            m.ActorFailed: lambda process, message: self._do(
                self._actors.failed(message.actor, process, message.reason, message.failure)
            ),
            m.ActorGranted: self._on_actor_granted,
            m.ActorUp: self._on_actor_up,
            m.Constructed: lambda process, message: self._do(
                self._actors.constructed(process, message.failure, message.reason)
            ),
            m.ActorExiting: lambda process, message: self._actors.exiting(process, message.reason),
            m.PostponeActor: lambda process, message: self._do(
                self._actors.postponed(message.actor, process, message.process)
            ),
            m.ResumeActor: lambda process, message: self._do(self._actors.resumed(message.actor, process)),
            m.WatchActor: self._on_watch_actor,
            m.KillActor: self._on_kill_actor,
            m.ActorReleased: lambda process, message: self._do(self._actors.released(message.actor)),
            m.FindActor: lambda process, message: tell(
                process, m.Answer.to(message, self._actors.find(message.namespace, message.name))
            ),
            m.ListNames: lambda process, message: tell(process, m.Answer.to(message, self._actors.named())),
            m.Publish: lambda process, message: self._published.update({message.key: message.payload}),
            m.Lookup: lambda process, message: tell(process, m.Answer.to(message, self._published.get(message.key))),
        }

    def describe(self, node: m.NodeId) -> list[ActorState]:
        """Return all actors that are not forgotten; `node`: where one that has no process yet is listed."""
        names = self._actors.names()
        return [
            ActorState(
                actor_id=actor.key.hex(),
                class_name=actor.class_name,
                state=_STATES.get(actor.state, "PENDING_CREATION"),
                name=names.get(actor.key, ""),
                reason=actor.reason,
                node_id=node_of(actor.process or node).hex(),
                worker_id=actor.process.hex() if actor.process else None,
                owner_id=actor.owner.hex(),
                constructing=actor.state == "starting",
                num_restarts=actor.restarts,
                max_restarts=actor.max_restarts,
                required_resources=in_amounts(actor.declaration.demand),
            )
            for actor in self._actors.actors.values()
        ]

    def _note(self, actor: Actor) -> None:
        detail = (actor.class_name, actor.state, actor.process, actor.reason)
        self.events.append((time.monotonic(), ACTOR, actor.key, detail))

    # Events -----------------------------------------------------------------------------------------------------

    def process_died(self, process: m.ProcessId, reason: str, failure: bytes | None = None) -> None:
        """A process is gone: an actor's, or an owner's."""
        self._cycles.process_died(process)
        self._do(self._actors.process_died(process, reason, failure))

    def is_actor(self, process: m.ProcessId) -> bool:
        """Return whether an actor lives in a process, of whichever node."""
        return self._actors.lives_in(process)

    def end_actors(self, group: m.GroupId, reason: str) -> None:
        """End all actors of a placement group."""
        for actor in list(self._actors.actors.values()):
            placement = actor.declaration.placement
            if placement is not None and placement.group == group:
                self._do(self._actors.end(actor.key, reason))

    def _on_actor_granted(self, process: m.ProcessId, message: m.ActorGranted) -> None:
        self._balance.actor_made(message.actor)
        if not self._actors.granted(message.actor, process):
            self._end_process(process, False)  # it has ended before its process was made
        else:
            self._note(self._actors.actors[message.actor])

    def _on_actor_up(self, process: m.ProcessId, message: m.ActorUp) -> None:
        actor = self._actors.actors.get(message.actor)
        if actor is None:
            return
        kept = actor.declaration.kept
        if kept is None:  # its owner has what it needs
            self._tell(actor.owner, m.StartActor(message.actor, process, actor.restarts, message.gpus))
        else:
            kept.assigned.gpus, kept.construct.restarts = message.gpus, actor.restarts
            for part in (kept.assigned, kept.function, kept.construct):
                self._tell(process, part)

    def _on_reserve_name(self, process: m.ProcessId, message: m.ReserveName) -> None:
        actor = _declared(process, message.create)
        taken_by = self._actors.reserve(message.namespace, message.name, actor, message.identity)
        if taken_by is None:
            self._note(actor)
        self._tell(process, m.Answer.to(message, taken_by))

    def _on_create_actor(self, process: m.ProcessId, message: m.CreateActor) -> None:
        actor = _declared(process, message)
        if actor.key not in self._actors.actors:
            self._note(actor)
        self._do(self._actors.create(actor, message.ready))

    def _on_watch_actor(self, process: m.ProcessId, message: m.WatchActor) -> None:
        actor = self._actors.watch(message.actor, process)
        if actor is None:
            self._tell(process, m.ActorState(message.actor, "dead", None, self._actors.reason_of(message.actor)))
        elif actor.state in ("alive", "restarting", "dead"):
            self._tell(process, _state_of(actor))

    def _on_kill_actor(self, process: m.ProcessId, message: m.KillActor) -> None:
        def kill() -> None:
            self._do(self._actors.kill(message.actor, message.no_restart))

        # Unknown: its owner's announcement is not read yet, or it is gone.
        kill() if message.actor in self._actors.actors else self._ask_again(kill)

    # Commands ---------------------------------------------------------------------------------------------------

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Tell):
                self._note(command.actor)
                if command.actor.state == "dead":
                    self._balance.forget_actor(command.actor.key)
                for watcher in command.actor.watchers:
                    self._tell(watcher, _state_of(command.actor))
            elif isinstance(command, AskResources):
                actor, declared = command.actor, command.actor.declaration
                wanted = m.ActorWanted(
                    actor.key,
                    b"" if declared.detached else actor.owner,
                    actor.class_name,
                    declared.demand,
                    declared.job,
                    declared.environment,
                    declared.placement,
                    actor.may_restart,
                    declared.spread,
                )
                self._balance.want_actor(wanted)
            elif isinstance(command, EndProcess):
                self._end_process(command.process, command.gracefully)
        self._balance.grant()


def _declared(process: m.ProcessId, message: m.CreateActor) -> Actor[m.CreateActor]:
    kept = message.kept is not None
    return Actor(message.actor, process, message.class_name, message.max_restarts, message, kept)


def _state_of(actor: Actor) -> m.ActorState:
    process = actor.process if actor.state == "alive" else None
    return m.ActorState(actor.key, actor.state, process, actor.reason, actor.failure)
