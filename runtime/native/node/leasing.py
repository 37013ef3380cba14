"""A node's leases: which request gets a worker, for tasks or as an actor, and which idle ones are kept."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from ...core.reports.rows import RequestState
from ...core.resources.amounts import UNIT, Demand, in_amounts
from ...core.values.packed_exceptions import not_made, pack_error
from ...exceptions import RuntimeEnvSetupError
from ..protocol import messages as m
from .cluster import Cluster
from .known_process import Process
from .scheduler import GrantGroup, Lease, Scheduler
from .workers import Workers

Tell = Callable[[m.ProcessId, m.Message], None]

# How often, in seconds, those that wait grow older.
_PASS_SECONDS = 0.1
_FULL = (
    "this node has {:,} processes, as many as it can have (1,024, or what its limit of open files allows: ulimit -Hn): "
    "one of them must end first. Actors end with their last handle"
)


class Leasing:
    """Does what the scheduler decides.

    Args:
        announce: has what happened to an actor's process handled as if that process had said it.
        call_later: has something done after so many seconds.
        gpus: the ids of the node's GPUs.
    """

    def __init__(  # noqa: PLR0917  # the node's parts, put together once
        self,
        scheduler: Scheduler,
        workers: Workers,
        cluster: Cluster,
        announce: Tell,
        call_later: Callable[[float, Callable[[], None]], None],
        gpus: list[str],
    ) -> None:
        self._scheduler, self._workers, self._cluster = scheduler, workers, cluster
        self._announce, self._call_later, self._gpus = announce, call_later, gpus
        self._actors: dict[m.ActorKey, m.ActorWanted] = {}
        self._seconds = 1.0  # until we know better
        self._most_idle = max(1, scheduler.total["CPU"] // UNIT)
        self._idle: list[Process] = []
        self._kinds: dict[tuple[m.ProcessId, int], m.WantLeases] = {}
        self._stopped = False
        self._passing = False
        self._granting = self._more = False
        self.handlers: dict[type, Callable[..., None]] = {
            m.WantLeases: self._on_want_leases,
            m.ReturnLease: self._on_return_lease,
            m.KillWorker: self._on_kill_worker,
            m.Blocked: lambda process, message: self._set_blocked(process, True),
            m.Unblocked: lambda process, message: self._set_blocked(process, False),
        }

    def stop(self) -> None:
        """Make no more processes: the node ends."""
        self._stopped = True

    def grant(self) -> None:
        """Give out what has become free; what becomes free by that, too."""
        self._more = True
        if self._granting:
            return  # it goes on further up the stack: nested as deep as there are requests, it would fall
        self._granting = True
        try:
            while self._more and not self._stopped:
                self._more = False
                self._grant()
        finally:
            self._granting = False

    def _grant(self) -> None:
        for grant in self._scheduler.grant(most=self._workers.room):
            if isinstance(grant, GrantGroup):
                self._announce(b"", m.GroupReserved(grant.group))
            elif isinstance(grant.key, bytes):
                wanted = self._actors.pop(grant.key)
                worker = self._workers.fork(wanted.class_name, wanted.environment)
                worker.actor, worker.job, worker.lease = wanted, wanted.job, grant
                grant.since, grant.retriable = time.monotonic(), wanted.retriable
                self._announce(worker.id, m.ActorGranted(grant.key))
            else:
                self._lend(grant)
        if self._scheduler.waits and not self._workers.room and self._idle:
            self._dismiss(self._idle.pop(0))  # its place is for whom there is none else; grants go on when it is gone
        if self._scheduler.waits and not self._passing:
            self._passing = True
            self._call_later(_PASS_SECONDS, self._pass_by)

    def _pass_by(self) -> None:
        """Age the requests that still wait, and recall the workers that the oldest ones need."""
        self._passing = False
        recalled = self._scheduler.pass_by()
        for worker in self._workers.processes.values() if recalled else ():
            if worker.lease in recalled:
                self._cluster.tell(worker.lease.asker, m.Recall(worker.id))
        self.grant()

    # Tasks ------------------------------------------------------------------------------------------------------

    def _on_want_leases(self, process: m.ProcessId, message: m.WantLeases) -> None:
        self._kinds[process, message.key] = message
        self._scheduler.want(process, message.key, message.demand, message.count, message.placement, message.spread)
        self.grant()

    def _lend(self, lease: Lease) -> None:
        assert isinstance(lease.key, int)
        kind = self._kinds[lease.asker, lease.key]
        lease.since, lease.retriable = time.monotonic(), kind.retriable
        wanted = (kind.environment, kind.job)
        fits = [worker for worker in self._idle if (worker.environment, worker.job) == wanted]
        if fits and not lease.gpus:
            worker = fits[-1]
            self._idle.remove(worker)
            worker.lease = lease
            self.begin(worker)
        else:
            worker = self._workers.fork("worker", kind.environment)
            worker.job, worker.lease = kind.job, lease

    def begin(self, worker: Process) -> None:
        """A worker has started: tell the process that has leased it."""
        if worker.actor is not None:
            self._announce(worker.id, m.ActorUp(worker.actor.actor, self._gpus_of(worker)))
        elif worker.lease is None:
            return
        elif self._cluster.lives(worker.lease.asker):
            assert isinstance(worker.lease.key, int)
            self._cluster.tell(worker.lease.asker, m.Leased(worker.lease.key, worker.id, self._gpus_of(worker)))
        else:
            self._scheduler.forget(worker.lease.asker)  # or it would get this worker again, as often as it has asked
            self._end(worker)

    def _gpus_of(self, worker: Process) -> list[str]:
        return [] if worker.lease is None else [self._gpus[index] for index in worker.lease.gpus]

    def _leased_to(self, process: m.ProcessId, worker_id: m.ProcessId) -> Process | None:
        worker = self._workers.processes.get(worker_id)
        return worker if worker is not None and worker.lease is not None and worker.lease.asker == process else None

    def _on_return_lease(self, process: m.ProcessId, message: m.ReturnLease) -> None:
        worker = self._leased_to(process, message.worker)
        if worker is not None:
            self._end(worker, message.reusable)

    def _on_kill_worker(self, process: m.ProcessId, message: m.KillWorker) -> None:
        worker = self._leased_to(process, message.worker)
        if worker is not None:
            worker.kill()

    def _end(self, worker: Process, reusable: bool = True) -> None:
        lease, worker.lease = worker.lease, None
        assert lease is not None
        self._seconds += 0.3 * (time.monotonic() - lease.since - self._seconds)
        self._scheduler.release(lease)
        self._idle.append(worker)
        # CUDA keeps to the devices that it saw first, and a worker that idles must not keep a device's memory.
        if lease.gpus or not reusable:
            self._dismiss(self._idle.pop())
        elif len(self._idle) > self._most_idle:
            self._dismiss(self._idle.pop(0))
        self.grant()

    def _dismiss(self, worker: Process) -> None:
        worker.ended = True
        self._cluster.tell(worker.id, m.Exit())

    def dismiss_idle(self) -> None:
        """End idle workers: new ones will be better."""
        for worker in self._idle:
            self._dismiss(worker)
        self._idle.clear()

    def _set_blocked(self, process_id: m.ProcessId, blocked: bool) -> None:
        process = self._workers.processes[process_id]
        if process.lease is not None and process.actor is None:
            self._scheduler.set_blocked(process.lease, blocked)
            if blocked:
                self.grant()

    def ended(self, process: Process, reason: str) -> None:
        """A process of this node is gone: what it held is free."""
        if process in self._idle:
            self._idle.remove(process)
        lease, process.lease = process.lease, None
        if process.actor is not None and process.setup_failed:
            error = RuntimeEnvSetupError(f"actor {process.title} cannot start in its runtime_env: {reason}")
            failure = pack_error(error)
            self._announce(process.id, m.Constructed(process.actor.actor, failure, not_made("__init__", failure)))
        if lease is not None:
            self._scheduler.release(lease)
            if isinstance(lease.key, int) and process.setup_failed:
                self._scheduler.want(lease.asker, lease.key, lease.demand, 0)
                self._cluster.tell(lease.asker, m.EnvironmentFailed(lease.key, reason))
            elif (
                isinstance(lease.key, int)
                and not (process.registered or process.ended)
                and self._cluster.lives(lease.asker)
            ):
                self._scheduler.want_again(lease)  # its asker was never told of it, and waits for it

    def asker_died(self, asker: m.ProcessId) -> None:
        """A process of any node is gone: drop its requests."""
        self._scheduler.forget(asker)
        self._kinds = {key: kind for key, kind in self._kinds.items() if key[0] != asker}
        for worker in self._workers.processes.values():
            if worker.lease is not None and worker.lease.asker == asker and worker.actor is None:
                worker.kill()  # what it runs, nobody waits for any more

    # Actors -----------------------------------------------------------------------------------------------------

    def want_actor(self, wanted: m.ActorWanted) -> None:
        """An actor is to be started as soon as it can have its resources; see `grant`."""
        if wanted.actor in self._actors:
            return
        self._actors[wanted.actor] = wanted
        self._scheduler.want_actor(wanted.owner, wanted.actor, wanted.demand, wanted.placement)

    def forget_actor(self, actor: m.ActorKey) -> None:
        """An actor is not to be started after all."""
        self._actors.pop(actor, None)
        self._scheduler.forget_actor(actor)

    # Placement groups -------------------------------------------------------------------------------------------

    def want_group(self, group: m.GroupId, bundles: dict[int, Demand]) -> None:
        """A placement group is to have these bundles reserved here, all of them at once; see `grant`."""
        self._scheduler.want_group(group, bundles)

    def drop_group(self, group: m.GroupId) -> None:
        """A placement group is removed: kill what runs in it."""
        leases = self._scheduler.drop_group(group)
        for worker in self._workers.processes.values():
            if worker.lease in leases:
                worker.kill()

    # Other nodes ------------------------------------------------------------------------------------------------

    def leave_work(self, leaves_work: bool, leaves_spreading: bool) -> None:
        """Run what needs no resources on another node, or here again."""
        self._scheduler.leaves_work, self._scheduler.leaves_spreading = leaves_work, leaves_spreading
        self.grant()

    def load(self, seen: int) -> m.NodeLoad:
        """Return what the head is to know."""
        wishes = []
        for asker, key, count, spread in self._scheduler.wishes():
            wanted = self._actors[key] if isinstance(key, bytes) else self._kinds[asker, key]
            wishes.append(m.Wish(asker, count, msgspec.structs.replace(wanted, spread=spread)))
        return m.NodeLoad(self._scheduler.available(), wishes, self._seconds, seen)

    def place(self, wish: m.Wish) -> None:
        """Take over what another node had no room for; see `grant`."""
        request = wish.request
        if isinstance(request, m.ActorWanted):
            self.want_actor(request)
        else:
            self._kinds[wish.asker, request.key] = request
            self._scheduler.want_more(wish.asker, request.key, request.demand, request.placement, request.spread)

    def placed(self, asker: m.ProcessId, key: int | m.ActorKey, spread: bool) -> None:
        """Another node has taken over one of what was asked for here."""
        if self._scheduler.withdraw(asker, key, spread) and isinstance(key, bytes):
            self._actors.pop(key, None)

    # Explaining -------------------------------------------------------------------------------------------------

    def describe(self) -> tuple[dict[str, float], list[RequestState]]:
        """Return the resources that are in use, and the requests that wait, in the order of the queue."""
        total, available = self._scheduler.total, self._scheduler.available()
        used = {name: units - available[name] for name, units in total.items()}
        requests = self._scheduler.waiting()
        for request in requests if not self._workers.room else ():
            request.note = _FULL.format(len(self._workers.processes))
        return in_amounts(used), requests
