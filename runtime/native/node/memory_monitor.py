"""Ends a worker before the kernel ends one at random: when memory runs out, the one whose loss costs least.

The choice is a pure function, `choose_victim`; the monitor looks at the memory and does what that says.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ...resources.machine_memory import Memory, read_memory
from .pool import Process

_PERIOD = 0.5


class Candidate(msgspec.Struct, frozen=True):
    """A worker that could be ended.

    Attributes:
        process: its id.
        caller: whose tasks it runs, or who has made the actor.
        retriable: what runs there is run again by itself.
        since: when that began; any clock.
    """

    process: bytes
    caller: bytes
    retriable: bool
    since: float


def choose_victim(candidates: Sequence[Candidate]) -> bytes | None:
    """Return the process to end, None if there is none: Ray's rule.

    Retriable work goes first, of it that of the caller who has most workers, and there the one that began last: it
    has least to lose. A caller's only worker counts as not retriable, so that everybody gets on.
    """
    groups: dict[bytes, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.retriable:
            groups.setdefault(candidate.caller, []).append(candidate)
    many = [group for group in groups.values() if len(group) > 1]
    if many:
        chosen = max(many, key=lambda group: (len(group), max(c.since for c in group)))
    elif groups:
        chosen = [candidate for group in groups.values() for candidate in group]
    else:
        chosen = list(candidates)
    return max(chosen, key=lambda candidate: candidate.since).process if chosen else None


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
        victim = choose_victim(list(filter(None, map(_candidate, self._processes.values()))))
        if victim is not None:
            process = self._processes[victim]
            part = f"{memory.used:.0%} of the memory are in use, more than {self._threshold:.0%}"
            process.starved = f"the node, since {part}"
            process.signal(signal.SIGKILL)


def _candidate(process: Process) -> Candidate | None:
    if process.ended or not process.registered or process.lease is None:
        return None
    return Candidate(process.id, process.lease.asker, process.retriable, process.since)
