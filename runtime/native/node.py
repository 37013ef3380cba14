"""The node's daemon: one per machine. It makes workers, lends them out, keeps actors and names, reports deaths.

    driver ─┬─ workers (tasks, actors)         directly, not through here
            └─ node ─── fork server ─── workers
                 │
                 Scheduler (resources)   ActorTable (actors, names)   arenas' descriptors   published values

One thread, one loop. The decisions are made by the two state machines; this file does what they say. It ends with
its last driver, however that one ended, and everything that it started ends with it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import setproctitle

from . import messages as m
from .actor_table import Actor, ActorTable, AskResources, Command, EndProcess, ReleaseResources, Tell
from .connection import Connection, accept, listen
from .dead_arenas import DeadArenas
from .forkserver import start_fork_server
from .loop import Loop
from .pool import Lease, Process
from .scheduler import GrantActor, GrantLease, Scheduler
from .workers import Workers

_LAST_OUTPUT_SECONDS = 0.5
# What is asked, or is about something that another process may have announced just before it told the asker: these are
# looked at only after all that lies in the sockets by then, since sockets are not read in the order of writing.
_QUESTIONS = (
    m.NewArena,
    m.ReserveName,
    m.FindActor,
    m.Lookup,
    m.AskResources,
    m.WatchActor,
)


class Node:
    """All state of the daemon, and what it does about each message."""

    def __init__(
        self, session: str, resources: dict[str, float], fork_server: Connection, fork_server_pid: int
    ) -> None:
        self._resources = resources
        cpus = max(1, int(resources.get("CPU", 1)))
        self._scheduler = Scheduler(resources, idle_slots=4 * cpus)
        self._most_idle = cpus
        self._actors = ActorTable()
        self._idle: list[Process] = []
        self._published: dict[str, bytes] = {}
        self._dead_arenas = DeadArenas()
        self._loop = Loop()
        self._listener = listen(session, None)
        self._loop.watch(self._listener.fileno(), self._accept)
        self._workers = Workers(self._loop, fork_server, fork_server_pid, self._on_exit, self._stop)
        self._processes = self._workers.processes
        self.running = True
        self._questions: list[Callable[[], None]] = []
        self._handlers: dict[type, Callable[[Process, Any], None]] = {
            m.NewArena: self._on_new_arena,
            m.Free: lambda process, message: self._dead_arenas.free(message.spans),
            m.WantLeases: self._on_want_leases,
            m.ReturnLease: self._on_return_lease,
            m.Blocked: lambda process, message: self._set_blocked(process, True),
            m.Unblocked: lambda process, message: self._set_blocked(process, False),
            m.ReserveName: self._on_reserve_name,
            m.CreateActor: self._on_create_actor,
            m.ActorFailed: lambda process, message: self._do(
                self._actors.failed(message.actor, process.id, message.reason, message.failure)
            ),
            m.Constructed: lambda process, message: self._do(self._actors.constructed(process.id, message.failure)),
            m.WatchActor: self._on_watch_actor,
            m.KillActor: self._on_kill_actor,
            m.ActorReleased: lambda process, message: self._do(self._actors.released(message.actor)),
            m.FindActor: lambda process, message: self._tell(process, m.ActorFound(self._actors.find(message.name))),
            m.Publish: lambda process, message: self._published.update({message.key: message.payload}),
            m.Lookup: lambda process, message: self._tell(process, m.Found(self._published.get(message.key))),
            m.AskResources: lambda process, message: self._tell(process, m.Resources(self._scheduler.available())),
            m.Preload: self._on_preload,
            m.Shutdown: lambda process, message: self._stop(),
        }

    # Loop and connections ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the last driver is gone."""
        while self.running:
            questions, self._questions = self._questions, []
            self._loop.poll(0 if questions else None)
            for answer in questions:
                answer()
        self._end_all()

    def _accept(self) -> None:
        sock = accept(self._listener)
        if sock is not None:
            connection = Connection(sock, self._loop.wait_for_room)
            self._loop.watch(connection.fileno(), lambda: self._read(connection))

    def _read(self, connection: Connection) -> None:
        if connection.blocked:
            connection.flush()
        messages = connection.receive_with_fds()
        if messages is None:
            self._on_hang_up(connection)
            return
        for message in messages:
            if isinstance(message, m.Register):
                self._on_register(connection, message)
            else:
                process = self._processes.get(connection.peer or b"")
                if process is None:
                    continue
                action = partial(self._handlers[type(message)], process, message)
                if type(message) in _QUESTIONS:
                    self._questions.append(action)
                else:
                    action()

    def _tell(self, process: Process, message: m._Message) -> None:
        if process.connection is not None:
            process.connection.send(message)

    def _on_hang_up(self, connection: Connection) -> None:
        self._loop.unwatch(connection.fileno())
        connection.close()
        process = self._processes.get(connection.peer or b"")
        if process is None:
            return
        process.connection = None
        if process.driver:
            self._on_death(process, f"driver process {process.pid} has ended")
            if not any(other.driver for other in self._processes.values()):
                self._stop()
        elif not process.ended:
            # A worker without a connection is no use; its death, reported by the fork server, does the rest.
            process.signal(signal.SIGKILL)

    def _on_register(self, connection: Connection, message: m.Register) -> None:
        if message.process is None:
            process = self._workers.new("driver")
            process.driver, process.pid, process.log_to_driver = True, message.pid, message.log_to_driver
        else:
            known = self._processes.get(message.process)
            if known is None:  # it was killed so soon that its death was reported before this was read
                self._loop.unwatch(connection.fileno())
                connection.close()
                return
            process = known
            self._workers.came_up(process, message.pid)
        connection.peer, process.connection = process.id, connection
        welcome = m.Registered(process.id, process.index, os.getpid(), self._resources)
        connection.send(welcome, (os.dup(self._workers.board_fd),))
        if process.lease is not None:
            self._begin_lease(process, process.lease)
        elif process.actor in self._actors.actors:
            owner = self._processes.get(self._actors.actors[process.actor].owner)
            if owner is not None:
                self._tell(owner, m.StartActor(process.actor, process.id))

    # Workers ----------------------------------------------------------------------------------------------------

    def _on_exit(self, process: Process, reason: str) -> None:
        connection = process.connection
        if connection is not None:
            while messages := connection.receive_with_fds():  # what it said last counts
                for message in messages:
                    self._handlers[type(message)](process, message)
            self._loop.unwatch(connection.fileno())
            connection.close()
        self._on_death(process, reason)

    def _on_death(self, process: Process, reason: str) -> None:
        self._workers.forget(process)
        if process in self._idle:
            self._idle.remove(process)
        if process.lease is not None:
            self._scheduler.give_back(process.held())
            self._scheduler.end_lease(process.lease.demand)
            if not process.registered and process.lease.asker in self._processes:
                # Its asker was never told of it, and waits for it.
                self._scheduler.want_again(process.lease.asker, process.lease.key, process.lease.demand)
        self._scheduler.forget(process.id)
        self._dead_arenas.process_died(process.id, process.arenas, self._processes.keys())
        for other in self._processes.values():
            self._tell(other, m.ProcessDied(process.id, reason))
            if other.lease is not None and other.lease.asker == process.id and not other.ended:
                # What it runs, nobody waits for any more.
                other.ended = True
                other.signal(signal.SIGKILL)
        self._do(self._actors.process_died(process.id, reason))

    # Leases -----------------------------------------------------------------------------------------------------

    def _on_want_leases(self, process: Process, message: m.WantLeases) -> None:
        self._scheduler.want(process.id, message.key, message.demand, message.count)
        self._grant()

    def _grant(self) -> None:
        if not self.running:
            return
        for grant in self._scheduler.grant(most=self._workers.room):
            if isinstance(grant, GrantActor):
                actor = self._actors.actors[grant.actor]
                worker = self._workers.fork(actor.class_name)
                worker.actor = grant.actor
                self._actors.granted(grant.actor, worker.id)
            else:
                self._lend(grant)

    def _lend(self, grant: GrantLease) -> None:
        lease = Lease(grant.asker, grant.key, grant.demand)
        if self._idle:
            worker = self._idle.pop()
            worker.lease = lease
            self._begin_lease(worker, lease)
        else:
            worker = self._workers.fork("worker")
            worker.lease = lease

    def _begin_lease(self, worker: Process, lease: Lease) -> None:
        asker = self._processes.get(lease.asker)
        if asker is None:
            self._end_lease(worker)
        else:
            self._tell(asker, m.Leased(lease.key, worker.id))

    def _on_return_lease(self, process: Process, message: m.ReturnLease) -> None:
        worker = self._processes.get(message.worker)
        if worker is not None and worker.lease is not None and worker.lease.asker == process.id:
            self._end_lease(worker)

    def _end_lease(self, worker: Process) -> None:
        assert worker.lease is not None
        self._scheduler.give_back(worker.held())
        self._scheduler.end_lease(worker.lease.demand)
        worker.lease, worker.blocked = None, False
        if len(self._idle) < self._most_idle:
            self._idle.append(worker)
        else:
            worker.ended = True
            self._tell(worker, m.Exit())
        self._grant()

    def _set_blocked(self, process: Process, blocked: bool) -> None:
        if process.lease is None or process.blocked == blocked:
            return
        cpus = {"CPU": process.lease.demand.get("CPU", 0.0)}
        process.blocked = blocked
        if blocked:
            self._scheduler.give_back(cpus)
            self._grant()
        else:
            self._scheduler.take(cpus)

    def _on_preload(self, process: Process, message: m.Preload) -> None:
        self._workers.preload(message)
        for worker in self._idle:  # they were forked without these modules
            worker.ended = True
            self._tell(worker, m.Exit())
        self._idle.clear()

    # Actors -----------------------------------------------------------------------------------------------------

    def _on_reserve_name(self, process: Process, message: m.ReserveName) -> None:
        accepted = self._actors.reserve(message.name, message.actor, process.id, message.handle)
        self._tell(process, m.NameReserved(accepted))

    def _on_create_actor(self, process: Process, message: m.CreateActor) -> None:
        actor = Actor(message.actor, process.id, message.class_name, message.demand, message.max_restarts)
        self._do(self._actors.create(actor, message.ready))

    def _on_watch_actor(self, process: Process, message: m.WatchActor) -> None:
        actor = self._actors.watch(message.actor, process.id)
        if actor is None:
            self._tell(process, m.ActorState(message.actor, "dead", None, "its last handle is gone"))
        elif actor.state in ("alive", "dead"):
            self._tell(process, _state_of(actor))

    def _on_kill_actor(self, process: Process, message: m.KillActor) -> None:
        def kill() -> None:
            self._do(self._actors.kill(message.actor, message.no_restart))

        # Unknown: its owner's announcement is not read yet, or it is gone.
        kill() if message.actor in self._actors.actors else self._questions.append(kill)

    def _do(self, commands: list[Command]) -> None:
        """Do what the table of actors asks for."""
        for command in commands:
            if isinstance(command, Tell):
                if command.actor.state == "dead":
                    self._scheduler.forget_actor(command.actor.key)
                for watcher in command.actor.watchers:
                    process = self._processes.get(watcher)
                    if process is not None:
                        self._tell(process, _state_of(command.actor))
            elif isinstance(command, AskResources):
                self._scheduler.want_actor(command.actor.owner, command.actor.key, command.actor.demand)
            elif isinstance(command, ReleaseResources):
                self._scheduler.give_back(command.actor.demand)
            elif isinstance(command, EndProcess):
                self._end_process(command)
        self._grant()

    def _end_process(self, command: EndProcess) -> None:
        process = self._processes.get(command.process)
        if process is not None:
            process.ended = True
            if command.gracefully:
                self._tell(process, m.Exit())
            else:
                process.signal(signal.SIGKILL)

    # Shared memory ----------------------------------------------------------------------------------------------

    def _on_new_arena(self, process: Process, message: m.NewArena) -> None:
        assert process.connection is not None
        fd = process.connection.fds.popleft()
        process.arenas.append(fd)
        self._tell(process, m.ArenaHeld(fd))

    # The end ----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        self.running = False

    def _end_all(self) -> None:
        """Kill the workers, pass on what they printed last, and leave."""
        self._workers.kill_all()
        deadline = time.monotonic() + _LAST_OUTPUT_SECONDS
        while any(process.pipes for process in self._processes.values()) and time.monotonic() < deadline:
            self._loop.poll(0.05)
        for process in self._processes.values():
            if process.connection is not None:
                process.connection.sock.settimeout(1)  # the last lines may wait for room
                process.connection.flush()


def _state_of(actor: Actor) -> m.ActorState:
    process = actor.process if actor.state == "alive" else None
    return m.ActorState(actor.key, actor.state, process, actor.reason, actor.failure)


def main() -> None:
    """Entry point: settings arrive as one line of JSON on standard input, "ready" leaves on standard output."""
    settings = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setproctitle.setproctitle("shoal: node")
    ours, theirs = socket.socketpair()
    pid = start_fork_server(theirs, ours, settings)
    theirs.close()
    # Three descriptors for each worker; the usual limit of 1024 would end at three hundred of them.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    node = Node(settings["session"], settings["resources"], Connection(ours), pid)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.close(sys.stdout.fileno())
    node.run()
    os._exit(0)


if __name__ == "__main__":
    main()
