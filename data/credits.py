"""Memory by credits: a task is started only against bytes that are granted to it, so the sum is bounded. Pure.

A task that runs is charged twice the bytes it is expected to give: they lie in its own memory and, while they are
stored, in the object store. One that has run is charged what it has given, until all who read that have done so. What
the last stages need for their next unit is kept back from the first ones, so that nobody fills the memory with what
cannot be used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RUNNING = 2
"""Copies of its result that a task holds while it runs."""


@dataclass
class Credits:
    """The grants of one run.

    Args:
        budget: bytes in all.
    """

    budget: int
    held: dict[int, int] = field(default_factory=dict)
    """Ticket → bytes."""
    kept_back: dict[int, int] = field(default_factory=dict)
    """Depth of a stage → bytes that its next unit needs; 0 is the last stage."""
    total: int = 0
    """Bytes that are held now."""
    peak: int = 0
    """The most that has been held."""
    _tickets: int = 0

    def grant(self, size: int, depth: int, alone: bool = False) -> int | None:
        """A ticket for a task that is expected to give `size` bytes; None: not now.

        Args:
            size: bytes, as estimated.
            depth: of the stage whose task it is; what stages nearer to the end keep back stays free.
            alone: nothing runs and nothing is ready, so only what is held counts, and the result only once.
        """
        kept = 0 if alone else sum(kept for other, kept in self.kept_back.items() if other < depth)
        charge = size if alone else RUNNING * size
        if self.total + charge + kept > self.budget:
            return None
        self._tickets += 1
        self._hold(self._tickets, charge)
        return self._tickets

    def settle(self, ticket: int, size: int) -> None:
        """The task has run, and what it gave takes `size` bytes."""
        self._hold(ticket, size)

    def free(self, ticket: int) -> None:
        """Nobody reads the result any more."""
        self.total -= self.held.pop(ticket)

    def keep_back(self, depth: int, size: int) -> None:
        """Have a stage's next unit need `size` bytes; at most half of the budget is kept back, or nothing would be read
        where a window may hold more than there is."""
        self.kept_back[depth] = min(RUNNING * size, self.budget // 2)

    def _hold(self, ticket: int, charge: int) -> None:
        self.total += charge - self.held.get(ticket, 0)
        self.held[ticket] = charge
        self.peak = max(self.peak, self.total)


@dataclass
class Estimate:
    """What the results of a stage take: learnt from those that have been made."""

    factor: float = 1.0
    """The largest seen ratio of real to declared bytes."""
    largest: int = 0
    """Bytes of the largest result that nobody had declared."""
    known: bool = False

    def expect(self, declared: int | None) -> int:
        """Bytes that a result of so many declared ones will take."""
        return int(declared * self.factor) if declared else self.largest

    def learn(self, declared: int | None, size: int) -> None:
        """A result took `size` bytes; `declared` were expected before any had been seen."""
        if declared:
            ratio = size / declared
            self.factor = ratio if not self.known else max(self.factor, ratio)
        else:
            self.largest = max(self.largest, size)
        self.known = True
