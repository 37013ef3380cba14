"""What brings a learner back, as the driver notes it: references, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...runtime import ObjectRef, get
from ..clock import Clock
from .parts import Parts


@dataclass(frozen=True)
class LearnerInput:
    """What one update was given: references to the rollouts of all groups, in group order, and its clock."""

    rollouts: tuple[ObjectRef, ...]
    clock: Clock


@dataclass(frozen=True)
class Piece:
    """What the replay buffer took in between two snapshots."""

    end: int
    """Transitions that the buffer had ever taken in by then."""
    rows: int
    """Those in the piece: the last ones, at most as many as the buffer holds."""
    ref: ObjectRef
    """A `Batch` of them, oldest first."""


@dataclass(frozen=True)
class LearnerLog:
    """What brings a learner back: its last snapshot, and what it learned from since."""

    iteration: int = 0
    """Iteration at whose start the snapshot was taken."""
    snapshot: ObjectRef | None = None
    """Its state then; None for the very beginning."""
    transitions: tuple[Piece, ...] = ()
    """What the replay buffer then held, oldest first."""
    inputs: tuple[LearnerInput, ...] = ()
    """Inputs of the updates since, one per iteration."""

    def held(self) -> tuple[Any, list[Any]]:
        """The snapshot, None for the very beginning, and the replay buffer's transitions: their values."""
        found = None if self.snapshot is None else get(self.snapshot)
        own = found.whole() if isinstance(found, Parts) else found
        return own, get([piece.ref for piece in self.transitions])

    def after(self, given: LearnerInput) -> LearnerLog:
        """The log after one more update."""
        return replace(self, inputs=(*self.inputs, given))

    @property
    def inserted(self) -> int:
        """Transitions that the replay buffer had ever taken in at the snapshot."""
        return self.transitions[-1].end if self.transitions else 0

    def at(self, iteration: int, snapshot: ObjectRef, new: ObjectRef, *, inserted: int, size: int) -> LearnerLog:
        """The log after a snapshot at the start of `iteration`.

        `new` is what the replay buffer took in since the last one; it has taken in `inserted` transitions ever, and
        holds the last `size` of them (both 0 without a buffer).
        """
        kept = tuple(piece for piece in self.transitions if piece.end > inserted - size)
        rows = min(inserted - self.inserted, size)
        return LearnerLog(iteration, snapshot, (*kept, Piece(inserted, rows, new)) if rows else kept)
