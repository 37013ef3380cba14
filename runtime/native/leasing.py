"""A node's workers on loan: who gets one for tasks or as an actor, and which idle ones are kept."""

from __future__ import annotations

from collections.abc import Callable

from ..exceptions import RuntimeEnvSetupError
from ..failure import pack_error
from ..reports import RequestReport
from . import messages as m
from .pool import Lease, Process
from .scheduler import Demand, GrantActor, Scheduler
from .workers import Workers

Tell = Callable[[m.ProcessId, m._Message], None]


class Leasing:
    """Does what the scheduler decides.

    Args:
        scheduler: the node's resources.
        workers: its processes.
        tell: sends a message to a process.
        announce: has what happened to an actor's process handled as if that process had said it.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        workers: Workers,
        tell: Tell,
        announce: Tell,
    ) -> None:
        self._scheduler, self._workers, self._tell = scheduler, workers, tell
        self._announce = announce
        self._actors: dict[m.ActorKey, m.ActorWanted] = {}
        self._most_idle = max(1, int(scheduler.total.get("CPU", 1)))
        self._idle: list[Process] = []
        self._environments: dict[tuple[m.ProcessId, int], m.Environment] = {}
        self._stopped = False
        self.handlers: dict[type, Callable[..., None]] = {
            m.WantLeases: self._on_want_leases,
            m.ReturnLease: self._on_return_lease,
            m.Blocked: lambda process, message: self._set_blocked(process, True),
            m.Unblocked: lambda process, message: self._set_blocked(process, False),
            m.AskResources: lambda process, message: tell(process, m.Resources(scheduler.available())),
        }

    def stop(self) -> None:
        """Make no more processes: the node ends."""
        self._stopped = True

    def grant(self) -> None:
        """Give out what has become free."""
        if self._stopped:
            return
        for grant in self._scheduler.grant(most=self._workers.room):
            if isinstance(grant, GrantActor):
                wanted = self._actors.pop(grant.actor)
                worker = self._workers.fork(wanted.class_name, wanted.environment)
                worker.actor = wanted
                self._announce(worker.id, m.ActorGranted(grant.actor))
            else:
                environment = self._environments.get((grant.asker, grant.key))
                self._lend(Lease(grant.asker, grant.key, grant.demand, environment))

    # Tasks ------------------------------------------------------------------------------------------------------

    def _on_want_leases(self, process: m.ProcessId, message: m.WantLeases) -> None:
        if message.environment is not None:
            self._environments[process, message.key] = message.environment
        self._scheduler.want(process, message.key, message.demand, message.count)
        self.grant()

    def _lend(self, lease: Lease) -> None:
        fits = [worker for worker in self._idle if worker.environment == lease.environment]
        if fits:
            worker = fits[-1]
            self._idle.remove(worker)
            worker.lease = lease
            self.begin(worker)
        else:
            worker = self._workers.fork("worker", lease.environment)
            worker.lease = lease

    def begin(self, worker: Process) -> None:
        """A worker is up: tell whom it is for."""
        if worker.actor is not None:
            self._announce(worker.id, m.ActorUp(worker.actor.actor))
        elif worker.lease is None:
            return
        elif worker.lease.asker in self._workers.processes:
            self._tell(worker.lease.asker, m.Leased(worker.lease.key, worker.id))
        else:
            self._end(worker)

    def _on_return_lease(self, process: m.ProcessId, message: m.ReturnLease) -> None:
        worker = self._workers.processes.get(message.worker)
        if worker is not None and worker.lease is not None and worker.lease.asker == process:
            self._end(worker)

    def _end(self, worker: Process) -> None:
        self._give_back(worker)
        worker.lease, worker.blocked = None, False
        self._idle.append(worker)
        if len(self._idle) > self._most_idle:
            self._dismiss(self._idle.pop(0))
        self.grant()

    def _give_back(self, worker: Process) -> None:
        assert worker.lease is not None
        self._scheduler.give_back(worker.held())
        self._scheduler.end_lease(worker.lease.demand)

    def _dismiss(self, worker: Process) -> None:
        worker.ended = True
        self._tell(worker.id, m.Exit())

    def dismiss_idle(self) -> None:
        """Let idle workers go: new ones will be better."""
        for worker in self._idle:
            self._dismiss(worker)
        self._idle.clear()

    def _set_blocked(self, process_id: m.ProcessId, blocked: bool) -> None:
        process = self._workers.processes[process_id]
        if process.lease is None or process.blocked == blocked:
            return
        cpus = {"CPU": process.lease.demand.get("CPU", 0.0)}
        process.blocked = blocked
        if blocked:
            self._scheduler.give_back(cpus)
            self.grant()
        else:
            self._scheduler.take(cpus)

    def process_died(self, process: Process, reason: str) -> None:
        """A process is gone: what it held is free, and what it asked for nobody wants."""
        if process in self._idle:
            self._idle.remove(process)
        if process.actor is not None:
            self._scheduler.give_back(process.actor.demand)
            if process.setup_failed:
                error = RuntimeEnvSetupError(f"actor {process.title} cannot start in its runtime_env: {reason}")
                self._announce(process.id, m.Constructed(process.actor.actor, pack_error(error)))
        if process.lease is not None:
            self._give_back(process)
            if process.setup_failed:
                self._scheduler.want(process.lease.asker, process.lease.key, process.lease.demand, 0)
                self._tell(process.lease.asker, m.EnvironmentFailed(process.lease.key, reason))
            elif not process.registered and process.lease.asker in self._workers.processes:
                # Its asker was never told of it, and waits for it.
                self._scheduler.want_again(process.lease.asker, process.lease.key, process.lease.demand)
        self._scheduler.forget(process.id)
        for key in [key for key in self._environments if key[0] == process.id]:
            del self._environments[key]
        for worker in self._workers.processes.values():
            if worker.lease is not None and worker.lease.asker == process.id:
                worker.kill()  # what it runs, nobody waits for any more

    # Actors -----------------------------------------------------------------------------------------------------

    def want_actor(self, wanted: m.ActorWanted) -> None:
        """An actor is to be started as soon as it can have its resources; see `grant`."""
        self._actors[wanted.actor] = wanted
        self._scheduler.want_actor(wanted.owner, wanted.actor, wanted.demand)

    def forget_actor(self, actor: m.ActorKey) -> None:
        """An actor is not to be started after all."""
        self._actors.pop(actor, None)
        self._scheduler.forget_actor(actor)

    def describe(self) -> tuple[Demand, Demand, list[RequestReport]]:
        """Return what the node has, what of it is in use, and who waits for it, in the order of the queue."""
        total, available = self._scheduler.total, self._scheduler.available()
        used = {name: amount - available[name] for name, amount in total.items()}
        requests = [
            RequestReport(request.asker, request.actor or b"", request.demand, request.count)
            for request in self._scheduler.waiting()
        ]
        return total, used, requests
