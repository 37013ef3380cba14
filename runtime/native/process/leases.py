"""Leases of workers that this process has: given back when they idle, relieved of tasks that wait behind a long one."""

from __future__ import annotations

import time

from ..protocol import messages as m
from ..protocol.connection import Connection
from .links import Links
from .task_queues import TaskQueue, TaskQueues, WorkerLease

# A lease without work is kept this long, seconds: a loop of `get(f.remote())` must not ask the node each time.
_LINGER = 0.02


class Leases:
    """Looks after the leases of all queues of tasks, as long as there is one that may need it."""

    def __init__(self, links: Links, queues: TaskQueues) -> None:
        self._links, self._queues = links, queues
        self._looking = False

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

    def end(self) -> None:
        """Event: this process ends. Give back what idles: the node kills workers whose holder is gone."""
        with self._links.lock:
            for queue in self._queues.by_key.values():
                for lease in list(queue.leases.values()):
                    if not lease.inflight:
                        self.give_back(queue, lease)

    def on_recall(self, node: Connection, message: m.Recall) -> None:
        """Event: the node wants a worker back."""
        for queue in self._queues.by_key.values():
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
            for queue in self._queues.by_key.values():
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
