"""Queues of this process's tasks: one for all that can run on the same workers, with the workers that it has leased.

Workers are given back when they idle, and relieved of tasks that wait behind a long one.
"""

from __future__ import annotations

import itertools
import time
from collections import deque

from msgspec import Struct, field

from ...core.engine import Function
from ...core.options import TaskOptions
from ...core.resources.amounts import Demand
from ...core.scheduling import SchedulingStrategy
from ..protocol import messages as m
from ..protocol.connection import Connection
from .calls import PendingCall
from .environments import Environments
from .group_calls import GroupCalls
from .links import Links

# A lease without work is kept this long, seconds: a loop of `get(f.remote())` must not ask the node each time.
_LINGER = 0.02


class WorkerLease(Struct, eq=False):
    """A worker of ours for the moment.

    Attributes:
        inflight: tasks that were sent, in the order in which it runs them.
        stuck: its task waits for others, or takes long: it takes no more.
        first: the task that it ran, with others behind it, when we last looked.
        recalled: others wait for its resources, or a function was called there as often as it may: it takes no more,
            and is given back when it idles.
        calls: how often functions with max_calls were called there.
    """

    worker: bytes
    connection: Connection
    inflight: dict[bytes, PendingCall] = field(default_factory=dict)
    stuck: bool = False
    first: bytes = b""
    recalled: bool = False
    calls: dict[bytes, int] | None = None
    idle_since: float = field(default_factory=time.monotonic)


class TaskQueue(Struct, eq=False):
    """Tasks that ask for the same resources and surroundings, and the leases that fit them (Ray's scheduling key).

    Attributes:
        key: the number that the node knows it by.
        retriable: whether its tasks are run again when a worker dies.
        failure: of all of them: the placement group that they were to run in is gone.
        waiting: the tasks that no worker has yet.
        leases: the workers, by process.
        wanted: how many more the node has been asked for.
    """

    key: int
    demand: Demand
    environment: m.Environment | None
    strategy: SchedulingStrategy | None
    placement: m.Placement | None
    retriable: bool
    failure: m.Value | None = None
    waiting: deque[PendingCall] = field(default_factory=deque)
    leases: dict[bytes, WorkerLease] = field(default_factory=dict)
    wanted: int = 0


class TaskQueues:
    """The queues of all tasks that this process has submitted, and the workers that it has leased for them.

    Attributes:
        groups: the placement groups that tasks may run in.
        by_key: those that may have tasks, by the number that the node knows them by.
    """

    def __init__(self, links: Links, environments: Environments, groups: GroupCalls) -> None:
        self._links, self._environments, self.groups = links, environments, groups
        self._by_shape: dict[tuple, TaskQueue] = {}
        self._keys = itertools.count()
        self.by_key: dict[int, TaskQueue] = {}
        self._looking = False

    def of(self, function: Function, options: TaskOptions) -> TaskQueue:
        """Return the queue for a task.

        Raises:
            InfeasibleError: it can never run.
            RuntimeEnvSetupError: its surroundings cannot be made.
        """
        environment, captured = self._environments.of(options.runtime_env), self.groups.captured
        shape = options.kind
        if environment is not None or captured is not None or options.max_retries == 0:
            shape = (options.max_retries == 0, shape, environment.id if environment is not None else None, captured)
        return self._by_shape.get(shape) or self._new(shape, function, options, environment)

    def _new(
        self, shape: tuple, function: Function, options: TaskOptions, environment: m.Environment | None
    ) -> TaskQueue:
        strategy = self.groups.strategy_of(options.scheduling_strategy)
        with self._links.lock:
            placement = self.groups.place(f"task {function.name}", options.demand, strategy)
            retriable = options.max_retries != 0
            queue = TaskQueue(next(self._keys), options.demand, environment, strategy, placement, retriable)
            queue.failure = None if placement is None else self.groups.removal_of(placement.group)
            self._by_shape[shape] = self.by_key[queue.key] = queue
        return queue

    def assignment(self, queue: TaskQueue, gpus: list[str]) -> m.Assigned:
        """Return what tells a worker what tasks of a queue may use."""
        return self.groups.assignment(queue.demand, gpus, queue.strategy)

    def on_node_death(self) -> None:
        """Event: what could run there may be infeasible now, so the next task of each shape is looked at again."""
        self._by_shape = {shape: queue for shape, queue in self._by_shape.items() if queue.placement is not None}

    def drop_group(self, group: m.GroupId) -> list[TaskQueue]:
        """Forget the queues of a placement group, which is removed; return them with the reason."""
        dropped = []
        for shape, queue in list(self._by_shape.items()):
            if queue.placement is not None and queue.placement.group == group:
                queue.failure = self.groups.removal_of(group)
                del self._by_shape[shape], self.by_key[queue.key]
                dropped.append(queue)
        return dropped

    # Leases -----------------------------------------------------------------------------------------------------

    def look_soon(self) -> None:
        """Schedule a look at them, under the lock: a lease idles, or has tasks behind the one that it runs."""
        if not self._looking:
            self._looking = True
            self._links.reactor.call_later(_LINGER, self._look)

    def give_back(self, queue: TaskQueue, lease: WorkerLease) -> None:
        """Return the worker to the node."""
        del queue.leases[lease.worker]
        # Calls of functions that may be called only so often in one process are counted here, not by the next holder.
        self._links.node.send(m.ReturnLease(lease.worker, reusable=lease.calls is None))

    def give_all_back(self) -> None:
        """Event: this process ends, or wants new workers. Give back what idles: the node kills workers whose holder is
        gone, and keeps those that are held."""
        with self._links.lock:
            for queue in self.by_key.values():
                for lease in list(queue.leases.values()):
                    if not lease.inflight:
                        self.give_back(queue, lease)

    def on_recall(self, node: Connection, message: m.Recall) -> None:
        for queue in self.by_key.values():
            lease = queue.leases.get(message.worker)
            if lease is not None:
                lease.recalled = True
                if not lease.inflight:
                    self.give_back(queue, lease)

    def _look(self) -> None:
        with self._links.lock:
            self._looking = False
            now = time.monotonic()
            look_again = False
            for queue in self.by_key.values():
                for lease in list(queue.leases.values()):
                    if len(lease.inflight) > 1 and not lease.stuck:
                        _bounce_if_long(lease)
                    elif lease.inflight:
                        continue
                    elif now - lease.idle_since >= _LINGER:
                        self.give_back(queue, lease)
                        continue
                    look_again = True
            if look_again:
                self.look_soon()


def _bounce_if_long(lease: WorkerLease) -> None:
    """Call tasks back that wait behind one that takes long after all: a CPU may be idle elsewhere."""
    first = next(iter(lease.inflight))
    if first == lease.first:
        lease.stuck = True  # at once: what is pushed from here on would stay there
        lease.connection.send(m.Bounce())
    lease.first = first
