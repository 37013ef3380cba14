"""Ends a worker before the kernel ends one at random: when memory runs out, the one whose loss costs least.

The choice is a pure function, `choose_victim`; the monitor looks at the memory and does what that says.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Mapping

from ...core.resources.machine_memory import Memory, read_memory
from .known_process import Process
from .scheduler import Lease

_PERIOD = 0.5


def choose_victim(leases: Mapping[bytes, Lease]) -> bytes | None:
    """Return the process to end, of those that have leases; None if there is none: Ray's rule.

    Retriable work goes first, of it that of the caller who has most workers, and there the one that began last: it
    has least to lose. A caller's only worker counts as not retriable, so that everybody gets on.
    """
    workers = Counter(lease.asker for lease in leases.values() if lease.retriable)

    def superfluity(process: bytes) -> tuple[int, bool, float]:
        lease = leases[process]
        alike = workers[lease.asker] if lease.retriable else 0
        return alike if alike > 1 else 0, lease.retriable, lease.since

    return max(leases, key=superfluity, default=None)


class MemoryMonitor:
    """Looks at the memory twice a second as long as there are workers.

    Args:
        call_later: has an action called after so many seconds.
        processes: those of the node, by id.
        threshold: the part of the memory, 0 to 1, above which a worker is ended; 1: never.
        read: returns how the memory is.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], None],
        processes: Mapping[bytes, Process],
        threshold: float,
        read: Callable[[], Memory] = read_memory,
    ) -> None:
        self._call_later, self._processes, self._threshold, self._read = call_later, processes, threshold, read
        self._looking = False

    def start(self) -> None:
        """A worker is made: look from now on."""
        if not self._looking and self._threshold < 1:
            self._looking = True
            self._call_later(_PERIOD, self._look)

    def _look(self) -> None:
        self._looking = False
        if all(process.driver for process in self._processes.values()):
            return
        self.start()
        if any(process.starved for process in self._processes.values()):
            return  # what it held is not free yet
        memory = self._read()
        if memory.used <= self._threshold:
            return
        leases = {
            process.id: process.lease
            for process in self._processes.values()
            if process.lease is not None and process.registered and not process.ended
        }
        victim = choose_victim(leases)
        if victim is not None:
            process = self._processes[victim]
            part = f"{memory.used:.0%} of the memory are in use, more than {self._threshold:.0%}"
            process.starved = f"the node, since {part}"
            process.signal(signal.SIGKILL)
