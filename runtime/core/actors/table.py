"""The life of every actor that a node knows: a state machine without I/O, events in, commands out.

An actor is pending from the moment its owner declares it, since handles of it may be about already; it asks for
resources only once the arguments of its constructor are there.

pending ──granted──▶ starting ──constructed──▶ alive ──crashed, restarts left──▶ restarting ──granted──▶ starting
   │                    │                        │
   └────────────────────┴── killed, released, owner died, no restarts left, constructor failed ──▶ dead
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from ..ids import ActorKey, ProcessId

Declaration = TypeVar("Declaration")
# Why so many detached actors died is known.
_MOST_REASONS = 256


@dataclass
class Actor(Generic[Declaration]):
    """One actor. `state` is one of pending, starting, alive, restarting, dead.

    `declaration`: what whoever starts it has to know; nothing to the table. `kept`: that is all that is needed, so it
    ends neither with its last handle nor with its creator.
    """

    key: ActorKey
    owner: ProcessId
    class_name: str
    max_restarts: int
    declaration: Declaration
    kept: bool = False
    state: str = "pending"
    process: ProcessId | None = None
    restarts: int = 0
    reason: str = ""
    failure: bytes | None = None
    ending: str | None = None  # why its process is ending, if that is on purpose
    postponed: bool = False  # it waits for an argument of its constructor, and holds nothing meanwhile
    released: bool = False  # nobody can ask for it any more, once it is dead
    watchers: set[ProcessId] = field(default_factory=set)

    @property
    def may_restart(self) -> bool:
        """Whether it comes back after a crash."""
        return self.max_restarts == -1 or self.restarts < self.max_restarts


class AskResources(msgspec.Struct, frozen=True):
    """Request from the scheduler what the actor needs."""

    actor: Actor


class EndProcess(msgspec.Struct, frozen=True):
    """End the actor's process: kill it, or let what it runs finish first."""

    process: ProcessId
    gracefully: bool


class Tell(msgspec.Struct, frozen=True):
    """Tell the watchers how the actor is."""

    actor: Actor


Command = AskResources | EndProcess | Tell


class ActorTable(Generic[Declaration]):
    """All actors; the names of the living ones."""

    def __init__(self) -> None:
        self.actors: dict[ActorKey, Actor[Declaration]] = {}
        self._names: dict[tuple[str, str], tuple[ActorKey, bytes]] = {}
        self._reasons: dict[ActorKey, str] = {}  # why detached actors died, the latest ones
        self._by_process: dict[ProcessId, Actor[Declaration]] = {}

    # Names ------------------------------------------------------------------------------------------------------

    def reserve(self, namespace: str, name: str, actor: Actor[Declaration], identity: bytes) -> bytes | None:
        """Event: a process declares an actor with a name. None, or the identity of the living one that has it."""
        taken = self._names.get((namespace, name))
        if taken is not None:
            return taken[1]
        self._names[namespace, name] = (actor.key, identity)
        self.create(actor, ready=False)
        return None

    def find(self, namespace: str, name: str) -> bytes | None:
        """Return the identity of the actor with that name."""
        found = self._names.get((namespace, name))
        return None if found is None else found[1]

    def named(self) -> list[tuple[str, str]]:
        """Return the namespace and name of each named actor."""
        return sorted(self._names)

    def names(self) -> dict[ActorKey, str]:
        """Return the names of actors, by key."""
        return {key: name for (_, name), (key, _) in self._names.items()}

    def reason_of(self, key: ActorKey) -> str:
        """Return why an actor is dead that is forgotten."""
        return self._reasons.get(key, "its last handle is gone")

    def lives_in(self, process: ProcessId) -> bool:
        """Return whether a process was made for an actor, and has not died."""
        return process in self._by_process

    # Events -----------------------------------------------------------------------------------------------------

    def create(self, actor: Actor[Declaration], ready: bool) -> list[Command]:
        """Event: a process declares an actor, or says that its arguments are there (`ready`), or both at once."""
        known = self.actors.setdefault(actor.key, actor)
        if known.state == "pending":
            known.kept, known.declaration = actor.kept, actor.declaration
        known.watchers.add(known.owner)
        return [AskResources(known)] if ready and known.state == "pending" else []

    def failed(self, key: ActorKey, owner: ProcessId, reason: str, failure: bytes | None) -> list[Command]:
        """Event: its owner cannot even start it, since an argument of its constructor failed."""
        actor = self.actors.get(key)
        if actor is None or actor.owner != owner or actor.state != "pending":
            return []
        return self._die(actor, reason, failure)

    def granted(self, key: ActorKey, process: ProcessId) -> bool:
        """Event: it has its resources, and a process is made for it. False if it does not want one any more."""
        actor = self.actors.get(key)
        if actor is None or actor.state not in ("pending", "restarting"):
            return False
        actor.state, actor.process = "starting", process
        self._by_process[process] = actor
        return True

    def postponed(self, key: ActorKey, owner: ProcessId, process: ProcessId) -> list[Command]:
        """Event: its owner cannot give that process what makes the actor: an argument is being made again."""
        actor = self.actors.get(key)
        if actor is None or (actor.state, actor.owner, actor.process) != ("starting", owner, process):
            return []
        del self._by_process[process]  # its end is no crash
        actor.state, actor.process = "restarting" if actor.restarts else "pending", None
        actor.postponed = True
        return [EndProcess(process, gracefully=False)]

    def resumed(self, key: ActorKey, owner: ProcessId) -> list[Command]:
        """Event: the argument is there again."""
        actor = self.actors.get(key)
        if actor is None or actor.owner != owner or not actor.postponed or actor.state == "dead":
            return []
        actor.postponed = False
        return [AskResources(actor)]

    def constructed(self, process: ProcessId, failure: bytes | None, reason: str = "") -> list[Command]:
        """Event: it is made, or the method that was to make it has failed, for this reason."""
        actor = self._by_process.get(process)
        if actor is None or actor.state != "starting":
            return []
        if failure is None:
            actor.state = "alive"
            return [Tell(actor)]
        return [*self._die(actor, reason, failure), EndProcess(process, gracefully=True)]

    def process_died(self, process: ProcessId, reason: str, failure: bytes | None = None) -> list[Command]:
        """Event: a process is gone, perhaps with an exception as the cause: an actor's, or the owner's of actors."""
        commands: list[Command] = []
        actor = self._by_process.pop(process, None)
        if actor is not None and actor.state != "dead":
            actor.process = None
            if actor.ending is not None:
                commands += self._die(actor, actor.ending)
            elif actor.may_restart:
                actor.restarts += 1
                actor.state, actor.reason = "restarting", reason
                commands += [Tell(actor), AskResources(actor)]
            else:
                commands += self._die(actor, reason, failure)
        for owned in list(self.actors.values()):
            owned.watchers.discard(process)
            if owned.owner == process and not owned.kept:
                commands += self.end(owned.key, f"the process that created it is gone: {reason}", forget=True)
        return commands

    def exiting(self, process: ProcessId, reason: str) -> None:
        """Event: an actor ends itself on purpose: it will not be started again."""
        actor = self._by_process.get(process)
        if actor is not None and actor.ending is None:
            actor.ending = reason
            self._forget_name(actor.key)

    def kill(self, key: ActorKey, no_restart: bool) -> list[Command]:
        """Event: `kill` was called."""
        actor = self.actors.get(key)
        if actor is None or actor.state == "dead":
            return []
        if no_restart:
            return self.end(key, "it was killed by kill()")
        return [] if actor.process is None else [EndProcess(actor.process, gracefully=False)]

    def released(self, key: ActorKey) -> list[Command]:
        """Event: its last handle is gone."""
        actor = self.actors.get(key)
        if actor is not None and actor.state == "alive" and actor.process is not None:
            actor.released = True
            if actor.ending is not None:
                return []
            actor.ending = "its last handle is gone"
            self._forget_name(key)
            return [EndProcess(actor.process, gracefully=True)]
        return self.end(key, "its last handle is gone", forget=True)

    def end(self, key: ActorKey, reason: str, forget: bool = False) -> list[Command]:
        """Event: the actor must end now. `forget`: drop its row, too, since no handle of it is left."""
        actor = self.actors.get(key)
        if actor is None:
            return []
        commands: list[Command] = []
        if actor.state != "dead":
            if actor.process is not None:
                commands.append(EndProcess(actor.process, gracefully=False))
            commands += self._die(actor, reason)
        if forget:
            self.actors.pop(key, None)
        return commands

    def _die(self, actor: Actor[Declaration], reason: str, failure: bytes | None = None) -> list[Command]:
        actor.state, actor.reason, actor.failure = "dead", reason, failure
        self._forget_name(actor.key)
        if actor.released:
            self.actors.pop(actor.key, None)
        if actor.kept:  # nobody will say that its last handle is gone
            self.actors.pop(actor.key, None)
            if len(self._reasons) >= _MOST_REASONS:
                del self._reasons[next(iter(self._reasons))]
            self._reasons[actor.key] = reason
        return [Tell(actor)]

    def _forget_name(self, key: ActorKey) -> None:
        self._names = {name: entry for name, entry in self._names.items() if entry[0] != key}

    def watch(self, key: ActorKey, watcher: ProcessId) -> Actor[Declaration] | None:
        """Event: a process wants to know how an actor is. None if it is forgotten, that is, dead."""
        actor = self.actors.get(key)
        if actor is not None:
            actor.watchers.add(watcher)
        return actor
