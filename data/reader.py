"""Batches of a plan in their order, and where one can go on later."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from .. import runtime
from ..runtime import human_bytes
from .blocks import batch_in, joined
from .errors import BudgetError
from .flow import Run, Stats, Unit
from .opening import Opening, aside_of, reads_of
from .plan import Plan, fingerprint
from .rows import Ahead

DEFAULT_MEMORY = 1 << 30
"""Bytes for blocks and running tasks, unless `Dataset.options` says otherwise."""


@dataclass(frozen=True)
class Options:
    """How a plan is read. Nothing of it changes what is read."""

    memory: int = DEFAULT_MEMORY
    readers: int | None = None
    """Tasks of a stage that may run at the same time; None: as many as there are CPUs."""


@dataclass(frozen=True)
class Share:
    """Which batches: every `of`-th, beginning with number `index`, as long as all shares get one."""

    index: int = 0
    of: int = 1


@dataclass(frozen=True)
class Batching:
    """How rows become batches.

    Args:
        size: rows of each; None: as they lie in the blocks.
        drop_last: leave a last one of fewer rows out.
        batch_format: one of `blocks.BATCH_FORMATS`.
        share: which of the batches.
    """

    size: int | None
    drop_last: bool = False
    batch_format: str = "numpy"
    share: Share = Share()


def _preload(plan: Plan) -> None:
    """Have what tasks need imported where workers are made: each process that is started for them would take 0.1 s for
    it, and memory of its own. Of the sources' modules our own alone: a user's may be of this program only."""
    package = str(__package__)
    sources = {type(read.source).__module__ for read in reads_of(plan)}
    runtime.preload(f"{package}.steps", *sorted(name for name in sources if name.startswith(f"{package}.")))


class Batches(Iterator[Any]):
    """An iterator over the batches of a plan: `state()` says where it is, `stats()` what it has done.

    Closed at its end, by `close()`, or as a context manager; what has been started for batches to come is dropped then.
    """

    def __init__(
        self, plan: Plan, options: Options, batching: Batching, epoch: int = 0, state: Mapping[str, Any] | None = None
    ) -> None:
        _preload(plan)
        readers = options.readers or max(1, int(runtime.cluster_resources().get("CPU", 1)))
        self._batching, self._run = batching, Run(options.memory, readers, aside_of(plan))
        opening = Opening(plan, self._run)
        self._print = fingerprint(plan, opening.pieces)
        self._epoch, self._number = epoch, 0
        self._place: list[Any] = [0, None]  # [rows to skip, the cursor] of the next batch
        self._reached = self._place  # of the next row, while there is no unit
        if state is not None:
            self._check(state)
            self._epoch, self._number, self._place = state["epoch"], state["batch"], state["cursor"]
        skipped, cursor = self._place
        self._ahead = Ahead(self._run, opening.open(self._epoch, cursor), 4 * readers)
        self._unit: Unit | None = None  # of which rows are left
        self._table: pa.Table | None = None
        self._row = skipped

    def _check(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping) or state.get("plan") != self._print:
            given = state.get("plan") if isinstance(state, Mapping) else state
            raise runtime.InputError(
                f"the state is of another plan ({given!r:.80}, this one is {self._print!r}): its files, "
                "stages or their settings have changed. Read from the beginning"
            )
        if state.get("check") != _check_of(state):
            raise runtime.InputError(f"{state!r:.200} is damaged: no iterator's state() has given it")

    def __next__(self) -> Any:
        table = self.next_table()
        if table is None:
            self.close()
            raise StopIteration
        return batch_in(table, self._batching.batch_format)

    def next_table(self) -> pa.Table | None:
        """The next batch as a table; None at the end."""
        share, mine = self._batching.share, None
        # A round of batches, one for each share, is delivered as a whole or not at all: so all get the same number.
        for index in range(share.of):
            table = self._next_batch()
            if table is None:
                return None
            if index == share.index:
                mine = table
        assert mine is not None
        self._number += 1
        self._run.stats.rows += mine.num_rows
        self._place = self._reached if self._unit is None else [self._row, self._unit.cursor]
        return mine

    def _next_batch(self) -> pa.Table | None:
        if self._run.is_running:
            self._start_more()
        wanted = self._batching.size
        parts: list[pa.Table] = []
        missing = wanted or 1
        while missing > 0 and self._has_row():
            assert self._table is not None
            part = self._table.slice(self._row, missing if wanted else None)
            self._row += part.num_rows
            missing -= part.num_rows
            parts.append(part)
        if not parts or (wanted and missing > 0 and self._batching.drop_last):
            return None
        return joined(parts)

    def _has_row(self) -> bool:
        """Whether there is a row at the place where this is, which moves on to the next unit that has one."""
        while self._table is None or self._row >= self._table.num_rows:
            if self._table is not None:
                self._let_go()
                self._row = 0
            unit = self._next_unit()
            if unit is None:
                return False
            assert unit.facts is not None
            assert unit.block is not None
            self._unit, self._table = unit, runtime.get(unit.block)
            self._run.stats.bytes += unit.facts.bytes
        return True

    def _let_go(self) -> None:
        """Be done with the unit that is read: what it held is granted to others."""
        if self._unit is not None:
            self._reached = [self._row, self._unit.cursor]
            self._run.use_up(self._unit)
        self._unit = self._table = None

    def _next_unit(self) -> Unit | None:
        while True:
            self._start_more()
            if self._ahead.units and self._ahead.units[0].settled is not None:
                return self._ahead.units.popleft()
            begin = time.perf_counter()
            if self._run.settle(wait=True):
                self._run.stats.seconds_waited += time.perf_counter() - begin
            elif self._ahead.is_over:
                return None
            else:
                self._start_alone()

    def _start_more(self) -> None:
        self._run.settle(wait=False)
        self._ahead.fill()

    def _start_alone(self) -> None:
        """Nothing runs and nothing is ready: start what comes next with all the memory that is free."""
        ahead = self._ahead
        self._run.alone = True
        ahead.fill()
        self._run.alone = False
        if not ahead.units and not ahead.ended and not self._run.settle(wait=True):
            granted = self._run.credits
            raise BudgetError(
                f"{self._run.refused}, but of the memory budget of {human_bytes(granted.budget)} "
                f"{human_bytes(granted.total)} are held by what it is made of or with. Raise it (options(memory=…)), "
                "or make windows and pieces smaller"
            )

    def state(self) -> dict[str, Any]:
        """Where the next batch begins, in less than 1 KB that JSON takes; give it to ``iter_batches(state=…)``.

        `plan` is the plan's fingerprint, `epoch` the one that it was begun in, `batch` how many batches have been
        delivered, `cursor` how far each stage had come, and `check` a checksum of these.
        """
        found = {"plan": self._print, "epoch": self._epoch, "batch": self._number, "cursor": self._place}
        return found | {"check": _check_of(found)}

    def stats(self) -> Stats:
        """What has been done so far."""
        return replace(self._run.stats, peak_bytes=self._run.credits.peak)

    def close(self) -> None:
        """Drop what was started for batches to come."""
        self._let_go()
        self._ahead.close()
        self._run.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_of(state: Mapping[str, Any]) -> str:
    """8 hexadecimal digits that tell whether a state is as it was given: a damaged cursor would be another place."""
    text = json.dumps([state.get(name) for name in ("plan", "epoch", "batch", "cursor")])
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
