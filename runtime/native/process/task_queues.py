"""Queues of this process's tasks: one for all that can run on the same workers, with the workers that it has leased."""

from __future__ import annotations

import itertools
import time
from collections import deque

from ...engine import Function
from ...options import TaskOptions
from ...resources import Demand
from ...scheduling import SchedulingStrategy
from ..protocol import messages as m
from ..protocol.connection import Connection
from .environments import Environments
from .group_calls import GroupCalls
from .links import Links
from .pending import PendingCall


class WorkerLease:
    """A worker of ours for the moment. `inflight` is in the order in which it runs the tasks."""

    __slots__ = ("calls", "connection", "first", "idle_since", "inflight", "recalled", "stuck", "worker")

    def __init__(self, worker: bytes, connection: Connection) -> None:
        self.worker = worker
        self.connection = connection
        self.inflight: dict[bytes, PendingCall] = {}
        self.stuck = False  # its task waits for others, or takes long: it takes no more
        self.first = b""  # the task that it ran, with others behind it, when we last looked
        # Others wait for its resources, or a function was called there as often as it may: it takes no more, and is
        # given back when it idles.
        self.recalled = False
        self.calls: dict[bytes, int] | None = None  # how often functions with max_calls were called there
        self.idle_since = time.monotonic()


class TaskQueue:
    """Tasks that ask for the same resources and surroundings, and the leases that fit them (Ray's scheduling key).

    Attributes:
        key: the number that the node knows it by.
        waiting: the tasks that no worker has yet.
        leases: the workers, by process.
        wanted: how many more the node has been asked for.
    """

    def __init__(
        self,
        key: int,
        demand: Demand,
        environment: m.Environment | None,
        strategy: SchedulingStrategy | None,
        placement: m.Placement | None,
        *,
        retriable: bool = True,
    ) -> None:
        self.key, self.retriable = key, retriable
        self.demand, self.environment = demand, environment
        self.strategy, self.placement = strategy, placement
        self.failure: m.Value | None = None  # of all of them: the placement group that they were to run in is gone
        self.waiting: deque[PendingCall] = deque()
        self.leases: dict[bytes, WorkerLease] = {}
        self.wanted = 0


class TaskQueues:
    """The queues of all tasks that this process has submitted.

    Attributes:
        by_key: those that may have tasks, by the number that the node knows them by.
    """

    def __init__(self, links: Links, environments: Environments, groups: GroupCalls) -> None:
        self._links, self._environments, self._groups = links, environments, groups
        self._by_shape: dict[tuple, TaskQueue] = {}
        self._keys = itertools.count()
        self.by_key: dict[int, TaskQueue] = {}

    def of(self, function: Function, options: TaskOptions) -> TaskQueue:
        """Return the queue for a task.

        Raises:
            InfeasibleError: it can never run.
            RuntimeEnvSetupError: its surroundings cannot be made.
        """
        environment, captured = self._environments.of(options.runtime_env), self._groups.captured
        shape = options.kind
        if environment is not None or captured is not None or options.max_retries == 0:
            shape = (options.max_retries == 0, shape, environment.id if environment is not None else None, captured)
        return self._by_shape.get(shape) or self._new(shape, function, options, environment)

    def _new(
        self, shape: tuple, function: Function, options: TaskOptions, environment: m.Environment | None
    ) -> TaskQueue:
        strategy = self._groups.strategy_of(options.scheduling_strategy)
        with self._links.lock:
            placement = self._groups.place(f"task {function.name}", options.demand, strategy)
            retriable = options.max_retries != 0
            queue = TaskQueue(next(self._keys), options.demand, environment, strategy, placement, retriable=retriable)
            queue.failure = None if placement is None else self._groups.removal_of(placement.group)
            self._by_shape[shape] = self.by_key[queue.key] = queue
        return queue

    def assignment(self, queue: TaskQueue, gpus: list[str]) -> m.Assigned:
        """Return what tells a worker what tasks of a queue may use."""
        return self._groups.assignment(queue.demand, gpus, queue.strategy)

    def drop_group(self, group: m.GroupId) -> list[TaskQueue]:
        """Forget the queues of a placement group, which is removed; return them with the reason."""
        dropped = []
        for shape, queue in list(self._by_shape.items()):
            if queue.placement is not None and queue.placement.group == group:
                queue.failure = self._groups.removal_of(group)
                del self._by_shape[shape], self.by_key[queue.key]
                dropped.append(queue)
        return dropped
