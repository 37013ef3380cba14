"""Levels that need all rows before they give the first: sort and aggregate.

What they gather lies in the object store, beyond the budget of what streams: it moves to disk where the store is full.
"""

from __future__ import annotations

import functools
import math

from .. import runtime
from .flow import Answer, Cursor, Level, Run, Unit
from .grouping import aggregate_units
from .levels import Stage
from .plan import Aggregate, Sort
from .rows import Ahead
from .sorting import boundaries, count_of_ranges, merge_range
from .steps import run_on_blocks

RANGE_BYTES = 64 << 20
"""About what a sorted unit takes. A constant, since what follows sees units and must not depend on the machine."""

find_boundaries = runtime.remote(boundaries)


class Gathered(Ahead):
    """All units of a level, kept in the store."""

    def __init__(self, run: Run, child: Level) -> None:
        super().__init__(run, child, math.inf)
        self.blocks: list[runtime.ObjectRef] = []
        self.size = 0

    def is_whole(self) -> bool:
        """Start what can be started, let go of what is made; whether all of it is."""
        self.fill()
        while self.units and (facts := self.units[0].settled) is not None:
            unit = self.units.popleft()
            if facts.rows and unit.block is not None:
                self.blocks.append(unit.block)
                self.size += facts.bytes
            self.run.use_up(unit)
        return not self.units and self.is_over

    def close(self) -> None:
        """Let go of the units, and of those that are kept."""
        super().close()
        self.blocks.clear()


class Sorted:
    """Ranges of keys, one unit each, of sorted units.

    Args:
        stage: what it belongs to.
        child: gives sorted units.
        plan: what to sort by.
        epoch: which one.
        cursor: [number of the first range].
    """

    def __init__(self, stage: Stage, child: Level, plan: Sort, epoch: int, cursor: Cursor) -> None:
        self.stage, self.plan, self.epoch = stage, plan, epoch
        self.all = Gathered(stage.run, child)
        self.index: int = cursor[0] if cursor else 0
        self.cuts: list[object] | None = None

    def pull(self) -> Unit | Answer:
        """Merge the next range."""
        if not self.all.is_whole():
            return Answer.LATER
        blocks, keys, descending = self.all.blocks, self.plan.keys, self.plan.descending
        if self.cuts is None:
            ranges = count_of_ranges(self.all.size, RANGE_BYTES)
            # Waits for one short task, after all of the rest has been waited for.
            found = find_boundaries.remote(keys[0], descending, ranges, *blocks) if ranges > 1 else None
            self.cuts = [] if found is None else runtime.get(found)
        if not blocks or self.index > len(self.cuts):
            return Answer.END
        name = f"range {self.index} of epoch {self.epoch}"
        grant = self.stage.grant(self.all.size // (len(self.cuts) + 1), name)
        if grant is None:
            return Answer.LATER
        merge = functools.partial(merge_range, keys, descending, self.cuts, self.index)
        self.index += 1
        refs = run_on_blocks.remote(self.stage.work, merge, name, *blocks)
        return self.stage.launch(grant, refs, name=name, epoch=self.epoch, cursor=[self.index - 1])

    def close(self) -> None:
        """Let go of what is gathered."""
        self.all.close()


class Aggregated:
    """One unit with a row for each group.

    Args:
        stage: what it belongs to.
        child: gives the aggregates of each unit.
        plan: the groups, and what is asked of them.
        epoch: which one.
        cursor: [0] at the only unit.
    """

    def __init__(self, stage: Stage, child: Level, plan: Aggregate, epoch: int, cursor: Cursor) -> None:
        self.stage, self.plan, self.epoch = stage, plan, epoch
        self.all = Gathered(stage.run, child)
        self.index: int = cursor[0] if cursor else 0

    def pull(self) -> Unit | Answer:
        """Combine all units."""
        if self.index:
            return Answer.END
        if not self.all.is_whole():
            return Answer.LATER
        name = f"groups of epoch {self.epoch}"
        grant = self.stage.grant(self.all.size, name) if self.all.blocks else None
        if grant is None:
            return Answer.LATER if self.all.blocks else Answer.END
        self.index = 1
        combine = functools.partial(aggregate_units, self.plan.keys, self.plan.aggregates)
        refs = run_on_blocks.remote(self.stage.work, combine, name, *self.all.blocks)
        return self.stage.launch(grant, refs, name=name, epoch=self.epoch, cursor=[0])

    def close(self) -> None:
        """Let go of what is gathered."""
        self.all.close()
