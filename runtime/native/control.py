"""What all processes share by name: actors, their names, published values (the paper's control store)."""

from __future__ import annotations

from collections.abc import Callable

from . import messages as m
from .actor_table import Actor, ActorTable, AskResources, Command, EndProcess, ReleaseResources, Tell
from .leasing import Leasing
from .pool import Process


class Control:
    """Does what the table of actors asks for, and answers questions.

    Args:
        tell: sends a message to a process, if it lives.
        end_process: ends an actor's process: gracefully, or at once.
        ask_again: has an action done once all that lies in the sockets by now is read.
    """

    def __init__(
        self,
        tell: Callable[[m.ProcessId, m._Message], None],
        end_process: Callable[[m.ProcessId, bool], None],
        ask_again: Callable[[Callable[[], None]], None],
    ) -> None:
        self._tell, self._end_process, self._ask_again = tell, end_process, ask_again
        self._actors = ActorTable()
        self._published: dict[str, bytes] = {}
        self.leasing: Leasing  # each needs the other
        self.handlers: dict[type, Callable[..., None]] = {
            m.ReserveName: self._on_reserve_name,
            m.CreateActor: self._on_create_actor,
            m.ActorFailed: lambda process, message: self._do(
                self._actors.failed(message.actor, process.id, message.reason, message.failure)
            ),
            m.Constructed: lambda process, message: self._do(self._actors.constructed(process.id, message.failure)),
            m.WatchActor: self._on_watch_actor,
            m.KillActor: self._on_kill_actor,
            m.ActorReleased: lambda process, message: self._do(self._actors.released(message.actor)),
            m.FindActor: lambda process, message: tell(process.id, m.ActorFound(self._actors.find(message.name))),
            m.Publish: lambda process, message: self._published.update({message.key: message.payload}),
            m.Lookup: lambda process, message: tell(process.id, m.Found(self._published.get(message.key))),
        }

    # Events -----------------------------------------------------------------------------------------------------

    def class_of(self, actor: m.ActorKey) -> str:
        """Return the name of an actor's class."""
        return self._actors.actors[actor].class_name

    def granted(self, actor: m.ActorKey, process: m.ProcessId) -> None:
        """An actor has its resources, and a process is made for it."""
        self._actors.granted(actor, process)

    def came_up(self, actor: m.ActorKey, process: m.ProcessId) -> None:
        """The process for an actor is up: its owner has what it needs."""
        if actor in self._actors.actors:
            self._tell(self._actors.actors[actor].owner, m.StartActor(actor, process))

    def process_died(self, process: m.ProcessId, reason: str) -> None:
        """A process is gone: an actor's, or an owner's."""
        self._do(self._actors.process_died(process, reason))

    def _on_reserve_name(self, process: Process, message: m.ReserveName) -> None:
        accepted = self._actors.reserve(message.name, message.actor, process.id, message.handle)
        self._tell(process.id, m.NameReserved(accepted))

    def _on_create_actor(self, process: Process, message: m.CreateActor) -> None:
        actor = Actor(message.actor, process.id, message.class_name, message.demand, message.max_restarts)
        self._do(self._actors.create(actor, message.ready))

    def _on_watch_actor(self, process: Process, message: m.WatchActor) -> None:
        actor = self._actors.watch(message.actor, process.id)
        if actor is None:
            self._tell(process.id, m.ActorState(message.actor, "dead", None, "its last handle is gone"))
        elif actor.state in ("alive", "dead"):
            self._tell(process.id, _state_of(actor))

    def _on_kill_actor(self, process: Process, message: m.KillActor) -> None:
        def kill() -> None:
            self._do(self._actors.kill(message.actor, message.no_restart))

        # Unknown: its owner's announcement is not read yet, or it is gone.
        kill() if message.actor in self._actors.actors else self._ask_again(kill)

    # Commands ---------------------------------------------------------------------------------------------------

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Tell):
                if command.actor.state == "dead":
                    self.leasing.forget_actor(command.actor.key)
                for watcher in command.actor.watchers:
                    self._tell(watcher, _state_of(command.actor))
            elif isinstance(command, AskResources):
                self.leasing.want_actor(command.actor.owner, command.actor.key, command.actor.demand)
            elif isinstance(command, ReleaseResources):
                self.leasing.release_actor(command.actor.demand)
            elif isinstance(command, EndProcess):
                self._end_process(command.process, command.gracefully)
        self.leasing.grant()


def _state_of(actor: Actor) -> m.ActorState:
    process = actor.process if actor.state == "alive" else None
    return m.ActorState(actor.key, actor.state, process, actor.reason, actor.failure)
