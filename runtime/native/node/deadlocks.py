"""The waits of processes for each other, and those that can never end: `WaitGraph`, a state machine without I/O.

`WaitCycles` is the node's watch over them: it tells those that wait for one another in a circle.

A process waits in one `get` (for all of its objects) or `wait` (for some of them); each object is made by processes
that run one call at a time, so it never comes while one of those waits for ever. What is *stuck* is the largest set of
waits of which each needs more than what can still come from outside the set.

Reports come at different times, and what they say may be over. A process counts waits, so a later report of the same
wait says that it has gone on all the time between the two. Hence a cycle is real once each process in it has
reported after each of them had reported for the first time: then all waited, and for one another, at one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ...core.ids import ProcessId
from ..protocol import messages as m
from ..protocol.wire import Awaited


@dataclass
class _Wait:
    epoch: int
    what: str
    needed: int
    awaited: list[Awaited]
    first: int
    last: int


@dataclass
class WaitGraph:
    """All waits that were reported and are not known to be over."""

    _waits: dict[ProcessId, _Wait] = field(default_factory=dict)
    _clock: int = 0

    def waits(self, process: ProcessId, epoch: int, what: str, needed: int, awaited: list[Awaited]) -> None:
        """Event: a process says that it waits, for so many of these objects; `epoch` counts its waits."""
        self._clock += 1
        known = self._waits.get(process)
        first = known.first if known is not None and known.epoch == epoch else self._clock
        self._waits[process] = _Wait(epoch, what, needed, awaited, first, self._clock)

    def goes_on(self, process: ProcessId) -> None:
        """Event: a process waits no more, or is gone."""
        self._waits.pop(process, None)

    def epoch(self, process: ProcessId) -> int:
        """Return the number of a process's wait."""
        return self._waits[process].epoch

    def stuck(self) -> set[ProcessId]:
        """Return the processes that can never go on."""
        stuck = set(self._waits)
        changed = True
        while changed:
            free = {process for process in stuck if self._may_go_on(self._waits[process], stuck)}
            stuck -= free
            changed = bool(free)
        return stuck

    @staticmethod
    def _may_go_on(wait: _Wait, stuck: set[ProcessId]) -> bool:
        return sum(stuck.isdisjoint(awaited.makers) for awaited in wait.awaited) >= wait.needed

    def cycles(self) -> list[list[ProcessId]]:
        """Return the cycles of processes that wait for one another, and for no other stuck process."""
        stuck = self.stuck()
        reach = {process: self._reachable(process, stuck) for process in stuck}
        found = {
            frozenset(reach[process])
            for process in stuck
            if all(process in reach[other] for other in reach[process]) and reach[process]
        }
        return sorted(sorted(cycle) for cycle in found)

    def _next(self, process: ProcessId, stuck: set[ProcessId]) -> Iterable[ProcessId]:
        return [maker for awaited in self._waits[process].awaited for maker in awaited.makers if maker in stuck]

    def _reachable(self, process: ProcessId, stuck: set[ProcessId]) -> set[ProcessId]:
        seen: set[ProcessId] = set()
        frontier = list(self._next(process, stuck))
        while frontier:
            other = frontier.pop()
            if other not in seen:
                seen.add(other)
                frontier += self._next(other, stuck)
        return seen

    def is_confirmed(self, cycle: list[ProcessId]) -> bool:
        """Return whether all of them have waited for one another at one moment."""
        waits = [self._waits[process] for process in cycle]
        return min(wait.last for wait in waits) > max(wait.first for wait in waits)

    def describe(self, cycle: list[ProcessId]) -> str:
        """Return a cycle of waits in words."""
        members, lines = set(cycle), []
        for process in cycle:
            wait = self._waits[process]
            names = [awaited.name for awaited in wait.awaited if not members.isdisjoint(awaited.makers)]
            lines.append(f"{wait.what} waits for {', '.join(dict.fromkeys(names))}")
        return "; ".join(lines)


class WaitCycles:
    """Collects what processes say of their waits.

    Args:
        tell: sends a message to a process, if it lives.
        ask_again: has an action done once all that lies in the sockets by now is read.
    """

    def __init__(
        self,
        tell: Callable[[m.ProcessId, m.Message], None],
        ask_again: Callable[[Callable[[], None]], None],
    ) -> None:
        self._tell, self._ask_again = tell, ask_again
        self._graph = WaitGraph()
        self._asked: set[frozenset[tuple[m.ProcessId, int]]] = set()
        self.handlers: dict[type, Callable[..., None]] = {
            m.Waits: self._on_waits,
            m.GoesOn: lambda process, message: self._graph.goes_on(process),
        }

    def _on_waits(self, process: m.ProcessId, message: m.Waits) -> None:
        self._graph.waits(process, message.epoch, message.what, message.needed, message.awaited)
        # Others may have said, before this was written, that they go on.
        self._ask_again(self._look)

    def _look(self) -> None:
        asked = set()
        for cycle in self._graph.cycles():
            waits = frozenset((process, self._graph.epoch(process)) for process in cycle)
            if self._graph.is_confirmed(cycle):
                self._end(cycle)
                continue
            asked.add(waits)
            if waits not in self._asked:
                for process, epoch in waits:
                    self._tell(process, m.AskWait(epoch))
        self._asked = asked

    def _end(self, cycle: list[m.ProcessId]) -> None:
        reason = (
            f"a cycle of waits that could never end: {self._graph.describe(cycle)}. An actor runs one call at a time "
            "unless it is async or has max_concurrency: make one of them so, or pass the references on instead of "
            "waiting for them with get"
        )
        for process in cycle:
            self._tell(process, m.Deadlocked(self._graph.epoch(process), reason))
        for process in cycle:
            self._graph.goes_on(process)

    def process_died(self, process: m.ProcessId) -> None:
        """A process is gone, and waits no more."""
        self._graph.goes_on(process)
