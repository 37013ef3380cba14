"""One run of a plan: what has been started, what it holds, and how rows are taken from it in order.

A level of a plan (`levels.py`) gives units, each a block that a task makes, in one order. `pull` starts the next one if
memory is granted for it, and never waits. So the driver has nothing to do but to pull, and to wait for what runs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from typing import Any, Protocol
from weakref import WeakSet

from .. import runtime
from ..runtime import human_bytes
from .credits import Credits, Estimate
from .steps import Meta

Cursor = list[Any] | None
"""Where a level is opened so that a certain unit comes first: numbers, and the cursors of its children."""


@dataclass(frozen=True)
class Grant:
    """Memory that a unit may be made in."""

    ticket: int
    expected: int
    """Bytes that it is for."""
    declared: int | None
    """Bytes that were expected before anything was learnt."""


@dataclass(eq=False)
class Unit:
    """A block that is being made, or has been."""

    meta: runtime.ObjectRef
    block: runtime.ObjectRef | None
    name: str
    """Which one it is, among those of all epochs: what random numbers are drawn by."""
    epoch: int
    cursor: Cursor
    grant: Grant
    estimate: Estimate
    """Of its level."""
    inputs: Sequence[Unit] = ()
    facts: Meta | None = None
    failure: Exception | None = None
    users: int = 0
    """Units that are being made of it."""
    is_used_up: bool = False
    """Whether no further one will be."""
    is_freed: bool = False
    """Whether its memory has been given back."""

    @property
    def settled(self) -> Meta | None:
        """What it turned out to be; None while it is being made. Raises what its making raised."""
        if self.failure is not None:
            raise self.failure
        return self.facts

    @property
    def size(self) -> int:
        """Its bytes, as far as they are known."""
        return self.grant.expected if self.facts is None else self.facts.bytes


_RUNS: WeakSet[Run] = WeakSet()
"""Those that are open in this process."""

Stretch = tuple[Unit, int, int]
"""Rows of a unit: from, to."""


class Answer(Enum):
    """What `pull` says where it starts nothing."""

    LATER = auto()
    """Something has to end first."""
    END = auto()
    """There is no further unit."""


class Level(Protocol):
    """A stage of a plan at work."""

    def pull(self) -> Unit | Answer:
        """Start the next unit, if that can be done without waiting."""

    def close(self) -> None:
        """Let go of all units that it holds, which nobody will take."""


@dataclass
class Stats:
    """What a run has done so far."""

    rows: int = 0
    """Rows that were delivered."""
    bytes: int = 0
    """Bytes of the blocks that were delivered from."""
    tasks: int = 0
    seconds_waited: float = 0.0
    """How long whoever iterates had to wait for blocks."""
    peak_bytes: int = 0
    """The most that was granted to blocks and running tasks at the same time."""
    budget_bytes: int = 0
    bad_rows: dict[str, int] = field(default_factory=dict)
    """Rows that were left out, by file."""


@functools.cache
def _gauges() -> tuple[Any, Any]:
    """What `shoal status` shows of the readings of this process."""
    make = runtime.util.metrics.Gauge
    return (
        make("data_bytes", "Bytes granted to blocks of datasets that are read, and to tasks that make them."),
        make("data_budget_bytes", "Bytes that these may take."),
    )


class Run:
    """What the levels of one plan have in common.

    Args:
        budget: bytes for blocks and running tasks.
        readers: tasks that may run at the same time in each level.
        aside: the file that takes bad rows; None: they are only counted.
    """

    def __init__(self, budget: int, readers: int, aside: str | None) -> None:
        self.credits, self.readers, self.aside = Credits(budget), readers, aside
        self.stats = Stats(budget_bytes=budget)
        self.alone = False
        """Whether nothing runs and nothing is ready, so that the next unit may take all that is free."""
        self.refused = ""
        """The unit that was last not granted its memory, and its size."""
        _RUNS.add(self)
        self._running: dict[runtime.ObjectRef, Unit] = {}
        self._shared: dict[tuple[int, str], Any] = {}

    def shared(self, plan: Any, what: str, make: Callable[[], Any]) -> Any:
        """What all epochs of one stage share, made when it is first asked for."""
        found = self._shared.get((id(plan), what))
        if found is None:
            found = self._shared[id(plan), what] = make()
        return found

    @property
    def is_running(self) -> bool:
        """Whether a task has not been seen to end."""
        return bool(self._running)

    def count_running(self, estimate: Estimate) -> int:
        """How many units of a level are being made; its estimate tells the level."""
        return sum(unit.estimate is estimate for unit in self._running.values())

    def grant(self, estimate: Estimate, declared: int | None, depth: int, name: str) -> Grant | None:
        """Memory for a unit; None if it cannot be started now."""
        running = self.count_running(estimate)
        # What nobody knows the size of is tried with one first.
        if running >= (self.readers if estimate.known or declared is not None else 1):
            return None
        size = estimate.expect(declared)
        ticket = self.credits.grant(size, depth, self.alone)
        if ticket is None:
            self.refused = f"{name} takes about {human_bytes(size)}"
            return None
        self.alone = False
        return Grant(ticket, size, declared)

    def started(self, unit: Unit) -> Unit:
        """Take note of a unit whose task has been submitted."""
        self._running[unit.meta] = unit
        self.stats.tasks += 1
        for given in unit.inputs:
            given.users += 1
        return unit

    def settle(self, wait: bool) -> bool:
        """Take note of the tasks that have ended; with `wait` of one at least. False if none runs."""
        if not self._running:
            return False
        refs = list(self._running)
        ready, _ = runtime.wait(refs, num_returns=1 if wait else len(refs), timeout=None if wait else 0)
        if wait and len(refs) > 1:
            ready, _ = runtime.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            self._settle(self._running.pop(ref))
        if ready:
            show()
        return True

    def _settle(self, unit: Unit) -> None:
        try:
            unit.facts = runtime.get(unit.meta)
            unit.estimate.learn(unit.grant.declared, unit.facts.bytes)
        except Exception as error:
            # Raised where its turn comes, so that it is the same error however many readers there are.
            unit.failure = error
        self.credits.settle(unit.grant.ticket, 0 if unit.facts is None else unit.facts.bytes)
        for given in unit.inputs:
            given.users -= 1
            self._free(given)
        self._free(unit)

    def close(self) -> None:
        """Let go of what is being made, and of the actors."""
        self._running.clear()
        self._shared.clear()
        if self in _RUNS and runtime.is_initialized():
            _RUNS.discard(self)
            show()

    def use_up(self, unit: Unit) -> None:
        """All of a unit has been taken: tell of its bad rows, and let go of it."""
        self._report(unit)
        self.let_go(unit)

    def let_go(self, unit: Unit) -> None:
        """No further unit will be made of this one: it is freed when it has been made, and those of it."""
        unit.is_used_up = True
        unit.block = None
        self._free(unit)

    def _free(self, unit: Unit) -> None:
        made = unit.facts is not None or unit.failure is not None
        if unit.is_used_up and made and unit.users == 0 and not unit.is_freed:
            self.credits.free(unit.grant.ticket)
            unit.is_freed = True

    def _report(self, unit: Unit) -> None:
        """Count the bad rows of a unit and write them aside, in the order of the units."""
        if unit.facts is None or not unit.facts.bad:
            return
        path = unit.facts.bad_rows[0].path
        self.stats.bad_rows[path] = self.stats.bad_rows.get(path, 0) + unit.facts.bad
        if self.aside is not None:
            with open(self.aside, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in unit.facts.bad_rows)


def show() -> None:
    """Set the gauges to what is granted now."""
    granted, budget = _gauges()
    granted.set(sum(run.credits.total for run in _RUNS))
    budget.set(sum(run.credits.budget for run in _RUNS))
