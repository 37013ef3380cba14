"""The node's watch over long waits: it tells those that wait for one another in a circle."""

from __future__ import annotations

from collections.abc import Callable

from ..protocol import messages as m
from .deadlocks import WaitGraph


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
