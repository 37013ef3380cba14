"""The node's daemon: one per machine. It makes workers, lends them out, keeps actors and names, reports deaths.

    driver ─┬─ workers (tasks, actors)         directly, not through here
            └─ node ─── fork server ─── workers
                 │
                 Leasing (resources, leases)   Control (actors, names, published values)   arenas' descriptors

One thread, one loop. It ends with its last driver, however that one ended, and all that it started ends with it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from ...core.ids import PROCESS_BYTES, node_of
from ...core.reports.events import DIED, EVENTS_KEPT, UP, Event
from ...core.reports.rows import NodeReport, unix_ms
from ...core.resources.amounts import UNIT
from ...core.values.packed_exceptions import pack_error
from ...exceptions import OutOfMemoryError
from ..protocol import messages as m
from ..protocol.connection import Connection, ProtocolError
from ..protocol.local_sockets import peer_pid
from ..protocol.loop import Loop, show
from .balance import Balance
from .cluster import Cluster
from .connections import BY_NODES, OF_NODES, OF_OWN, Connections
from .control import Control
from .groups import Groups
from .known_process import Process
from .leasing import Leasing
from .metrics_server import serve_metrics
from .node_reports import NodeReports, describe_node, describe_worker
from .output import OutputReader
from .scheduler import Scheduler
from .session import SessionFolder, logs_of
from .settings import NodeSettings
from .storage import Storage
from .transport import connect, serve
from .workers import Workers

_LAST_WORDS_SECONDS = 0.5
# What is asked, or is about something that another process may have announced just before it told the asker: these are
# looked at only after all that lies in the sockets by then, since sockets are not read in the order of writing. If the
# asker's death lies there, they are dropped, and its connection, which is closed, closes descriptors that came along.
# A withdrawal is among them since it must not overtake what it withdraws.
_LATER = (m.Question, m.WithdrawActor, m.WatchActor, m.WatchGroup)


class Node:
    """All state of the daemon, and what it does about each message."""

    def __init__(self, settings: NodeSettings, folder: SessionFolder, fork_server: Process) -> None:
        self._settings, self._folder, resources = settings, folder, settings.resources
        self._names, self._loop = settings.names, Loop()
        self._workers = Workers(
            self._loop,
            fork_server,
            logs_of(folder.folder),
            self._on_exit,
            self._stop,
            memory_usage_threshold=settings.memory_usage_threshold,
        )
        self.info = m.NodeInfo(self._workers.prefix, socket.gethostname(), os.getpid(), resources)
        self._processes = self._workers.processes
        self.cluster = Cluster(
            self.info, self._processes, self._loop, self._from_node, self._on_death_elsewhere, self._on_nodes_changed
        )
        self._workers.on_new = self.cluster.process_made
        self.running = True
        self._questions: list[Callable[[], None]] = []
        self._connections = Connections(
            self._loop,
            self._names.node,
            self._processes,
            register=self._on_register,
            receive=self._from_process,
            observe=lambda observer, message: self._reports.observe(observer.send, message),
            hung_up=self._on_hang_up,
        )
        scheduler = Scheduler(resources, idle_slots=4 * max(1, resources["CPU"] // UNIT))
        self._leasing = Leasing(
            scheduler, self._workers, self.cluster, self._handle, self._loop.call_later, settings.gpus
        )
        self._balance = Balance(self.cluster, self._leasing)
        self._control = control = Control(self._balance, self.cluster.tell, self._end_process, self._questions_later)
        waits = settings.infeasible == "wait"
        self._groups = Groups(self._leasing, self.cluster, self._is_creator, control.end_actors, waits)
        self._started, self._deaths = time.monotonic(), 0
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._storage = Storage(settings.store_memory, self._processes, self.cluster, self._loop, self._workers.board)
        self._reports = NodeReports(self._loop, self._processes, self._describe, self.cluster)
        port = settings.metrics_port
        self._metrics_address = "" if port is None else serve_metrics(port, self._names.session)
        self._handlers = self._all_handlers()
        at_head = {*control.handlers, *self._groups.handlers, *self._balance.at_head}
        self.cluster.at_head = at_head | {m.Preload}

    def _all_handlers(self) -> dict[type, Callable[[m.ProcessId, Any], None]]:
        return {
            **self._leasing.handlers,
            **self._control.handlers,
            **self._groups.handlers,
            **self._storage.handlers,
            **self.cluster.handlers,
            **self._balance.handlers,
            m.EndProcess: lambda node, message: self._end_process(message.process, message.gracefully),
            m.Output: lambda node, message: self._workers.relay.show(message),
            m.AskState: lambda node, message: self._reports.answer(partial(self.cluster.tell_node, node), message),
            m.State: self._reports.on_state,
            m.StateReport: self._reports.on_report,
            m.Label: self._workers.on_label,
            m.Preload: self._on_preload,
            m.NotUnderstood: lambda sender, message: self._refuse(message.process, message.reason),
            m.Shutdown: lambda sender, message: self._on_shutdown(sender),
        }

    # Loop and connections ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the last driver is gone."""
        unsettled = False
        while self.running:
            questions, self._questions = self._questions, []
            self._loop.poll(0 if questions or unsettled else None)
            for answer in questions:
                answer()
            unsettled = self._balance.settle()
        self._end_all()

    def _questions_later(self, question: Callable[[], None]) -> None:
        self._questions.append(question)

    def _from_process(self, process: m.ProcessId, message: m.Message) -> None:
        only_nodes = type(message) in OF_NODES
        self._refuse(process, f"{message!r:.99}") if only_nodes else self._receive(process, message)

    def _from_node(self, sender: m.ProcessId | m.NodeId, message: m.Message) -> None:
        only_processes = len(sender) != PROCESS_BYTES and type(message) not in BY_NODES
        self._refuse(sender, f"{message!r:.99}") if only_processes else self._receive(sender, message)

    def _receive(self, sender: m.ProcessId | m.NodeId, message: m.Message) -> None:
        if isinstance(message, _LATER):
            self._questions.append(partial(self._answer, sender, message))
        else:
            self._attempt(sender, message)

    def _answer(self, asker: m.ProcessId, question: m.Message) -> None:
        process = self._processes.get(asker)
        # Who has died meanwhile hears no answer, and nothing would undo what is done for it now.
        if self.cluster.lives(asker) and (process is None or process.connection is not None):
            self._attempt(asker, question)

    def _attempt(self, sender: m.ProcessId | m.NodeId, message: m.Message) -> None:
        """Handle a message; one that makes no sense ends its sender's connection, and nothing else."""
        try:
            self._handle(sender, message)
        except ProtocolError as error:
            self._refuse(sender, str(error))
        except Exception as error:  # an id or a state that cannot be, or a bug of ours, which must be seen
            show()
            self._refuse(sender, f"{type(message).__name__}: {error!r}")

    def _refuse(self, sender: m.ProcessId | m.NodeId, why: str) -> None:
        """End the connection of a process that sends nonsense: others may wait for its answer for ever."""
        said = f"shoal: {sender.hex()} is not understood, and hung up on: {why}"
        show(said)
        process = self._processes.get(sender)
        if len(sender) != PROCESS_BYTES:
            self.cluster.drop(sender, why)
        elif node_of(sender) != self.info.id:
            self.cluster.send(node_of(sender), self.info.id, m.NotUnderstood(sender, why))
        elif process is not None and process.connection is not None:
            process.note_output(said)
            self._connections.hang_up(process.connection)

    def _handle(self, sender: m.ProcessId | m.NodeId, message: m.Message) -> None:
        """Handle a message of a process or a node, or pass it to the node that can."""
        node = self.cluster.place_of(message) if len(sender) == PROCESS_BYTES else self.info.id
        if node == self.info.id:
            handler = self._handlers.get(type(message))
            if handler is None or (type(message) in OF_OWN and sender not in self._processes):
                raise ProtocolError(getattr(message, "reason", f"nobody says {type(message).__name__} to a node"))
            handler(sender, message)
        else:
            self.cluster.send(node, sender, message)

    def _on_hang_up(self, process: Process) -> None:
        if process.driver:
            self._on_death(process, f"driver process {process.pid} has ended")
            if not any(other.driver for other in self._processes.values()):
                self._stop()
        elif not process.ended:
            # A worker without a connection is no use; its death, reported by the fork server, does the rest.
            process.signal(signal.SIGKILL)

    def _on_register(self, connection: Connection, message: m.Register) -> None:
        pid = peer_pid(connection.sock)
        if message.process is None:
            process = self._workers.new("driver")
            self._workers.driver_came(process, pid)
            process.job = m.Job(process.id, message.namespace)
            if message.log_to_driver:
                process.output_reader = OutputReader(connection, logs_of(self._folder.folder))
        else:
            known = self._processes.get(message.process)
            # It may have been killed so soon that its death was reported before this was read.
            if known is None or known.driver or known.registered:
                raise ProtocolError(f"no worker {message.process.hex()} is awaited")
            process = known
            self._workers.came_up(process, pid)
        connection.peer, process.connection = process.id, connection
        settings = self._settings
        welcome = m.Registered(
            process.id,
            process.index,
            os.getpid(),
            list(self.cluster.nodes.values()),
            settings.infeasible,
            self._folder.folder,
            settings.max_lineage_bytes,
            settings.spill_directory,
            settings.store_memory,
            process.job,
        )
        connection.send(welcome, (os.dup(self._workers.board_fd),))
        self._events.append((time.monotonic(), UP, process.id, (process.pid, process.title)))
        self._storage.joined(process.id)
        self._leasing.begin(process)

    # Workers ----------------------------------------------------------------------------------------------------

    def _on_exit(self, process: Process, reason: str) -> None:
        self._connections.read_out(process)
        self._on_death(process, reason)

    def _on_death(self, process: Process, reason: str) -> None:
        self._deaths += process.pid > 0 and not process.driver and not process.ended
        self._events.append((time.monotonic(), DIED, process.id, reason))
        self._workers.forget(process)
        death = m.ProcessDied(process.id, reason, process.starved is not None)
        self._leasing.ended(process, reason)
        self._tell_death(death)
        self._storage.process_died(process)
        self.cluster.process_died(death)
        self._reports.died(process.id)

    def _on_death_elsewhere(self, death: m.ProcessDied) -> None:
        self._tell_death(death)
        self._storage.owner_died(death.process)

    def _tell_death(self, death: m.ProcessDied) -> None:
        """A process of any node is gone."""
        self._leasing.asker_died(death.process)
        for other in self._processes:
            self.cluster.tell_here(other, death)
        failure = pack_error(OutOfMemoryError(death.reason)) if death.out_of_memory else None
        self._control.process_died(death.process, death.reason, failure)
        self._groups.process_died(death.process, death.reason)

    def _is_creator(self, process_id: m.ProcessId) -> bool:
        """Return whether what a process creates is its own: a driver's or an actor's, and not that of some task."""
        process = self._processes.get(process_id)
        return (process is not None and process.driver) or self._control.is_actor(process_id)

    def _end_process(self, process_id: m.ProcessId, gracefully: bool) -> None:
        if node_of(process_id) != self.info.id:
            self.cluster.send(node_of(process_id), self.info.id, m.EndProcess(process_id, gracefully))
            return
        process = self._processes.get(process_id)
        if process is None:
            return
        if gracefully:
            process.ended = True
            self.cluster.tell_here(process_id, m.Exit())
        else:
            process.kill()

    def _on_preload(self, sender: m.ProcessId | m.NodeId, message: m.Preload) -> None:
        self.cluster.spread(message)
        self._workers.preload(message)
        self._leasing.dismiss_idle()  # they were forked without these modules

    # Other nodes ------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Join a cluster, or let others join this one, as the settings say.

        Raises:
            InputError: it is refused.
            NodeDiedError: there is no head.
        """
        settings, cluster = self._settings, self.cluster
        if settings.join is not None:
            welcome = cluster.join(connect(settings.join, settings.secrets))
            self._workers.work_for(cluster.tell_head)
            self._settings = settings = msgspec.structs.replace(settings, **welcome.settings)
            self._workers.preload(m.Preload(settings.preload, settings.sys_path))
            print(f"shoal: node {self.info.id.hex()} has joined {settings.join}", file=sys.stderr)
        elif settings.listen is not None:
            cluster.address, self._server = serve(settings.listen, settings.secrets, cluster.open(self._names))
            cluster.welcome = m.Welcome([], cluster.address, settings.shared())

    def _on_nodes_changed(self, message: m.NodeJoined | m.NodeDied) -> None:
        for process in self._processes:
            self.cluster.tell_here(process, message)
        self._balance.changed(message)
        if isinstance(message, m.NodeJoined):
            return
        self._reports.died(message.node)
        if message.node == self.cluster.head:
            print(f"shoal: {message.reason}; so this node ends", file=sys.stderr)
            self._stop()

    # How things are ---------------------------------------------------------------------------------------------

    def _describe(self, sections: list[str]) -> NodeReport:
        used, requests = self._leasing.describe()
        views, storage, processes = self._storage.views(), self._storage, self._processes.values()
        row = describe_node(self.info, self._names.session, is_head=self.cluster.is_head)
        row.resources_used, row.start_time_ms = used, unix_ms(self._started)
        row.metrics_address = self._metrics_address
        return NodeReport(
            node=row,
            dead=[describe_node(gone, self._names.session, dead=True) for gone in self.cluster.dead],
            workers=[describe_worker(one, storage.made(one), views.get(one.id)) for one in processes],
            actors=self._control.describe(self.info.id),
            requests=requests,
            groups=self._groups.describe(),
            worker_deaths=self._deaths,
            logs=logs_of(self._folder.folder),
            events=[*self._events, *self._control.events] if "events" in sections else [],
            metrics=self._reports.retired.metrics,
        )

    # The end ----------------------------------------------------------------------------------------------------

    def _on_shutdown(self, sender: m.ProcessId | m.NodeId) -> None:
        if sender != self.cluster.head and not self._processes[sender].driver:
            raise ProtocolError("only drivers and the head end a node")
        self._stop()

    def _stop(self) -> None:
        self.running = False
        self._leasing.stop()

    def _end_all(self) -> None:
        """Kill the workers, pass on what they printed last, and leave."""
        self._workers.end_all()
        self.cluster.end()
        self._poll_while(lambda: self._printing() or (self.cluster.is_head and self.cluster.ending()))
        self.cluster.hang_up()
        self._poll_while(self.cluster.ending)
        for process in self._processes.values():
            if process.output_reader is not None and process.connection is not None:
                process.output_reader.finish(time.monotonic, _LAST_WORDS_SECONDS)
        self._folder.close()

    def _printing(self) -> bool:
        return any(process.pipes for process in self._processes.values())

    def _poll_while(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while condition() and time.monotonic() < deadline:
            self._loop.poll(0.05)
