"""Units that have been started ahead, and their rows as one line, from which others are cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from .flow import Answer, Level, Run, Stretch, Unit
from .steps import Slice


class Ahead:
    """The units of a level that have been started and wait to be taken, in order.

    Args:
        run: what they belong to.
        child: the level.
        most: units that may wait here, however little they take.
    """

    def __init__(self, run: Run, child: Level, most: float) -> None:
        self.run, self.child, self.most = run, child, most
        self.units: deque[Unit] = deque()
        self.ended = False
        self.failure: Exception | None = None

    def fill(self, counted: int = 0) -> None:
        """Start as many units as memory is granted for; the first `counted` do not count, since more is needed."""
        while not self.ended and len(self.units) - counted < self.most:
            try:
                answer = self.child.pull()
            except Exception as error:
                # Raised where its turn comes, as what a unit itself raised.
                self.failure, self.ended = error, True
                return
            if isinstance(answer, Unit):
                self.units.append(answer)
            elif answer is Answer.END:
                self.ended = True
            else:
                return

    @property
    def is_over(self) -> bool:
        """Whether no unit comes after those that wait here. Raises what kept the next one from being started."""
        if self.failure is not None:
            raise self.failure
        return self.ended

    def close(self) -> None:
        """Let go of the units. Nothing is told of their bad rows: how many units were started ahead is chance."""
        for unit in self.units:
            self.run.let_go(unit)
        self.units.clear()
        self.ended, self.failure = True, None
        self.child.close()


class Rows(Ahead):
    """The rows of a level as one line, from which stretches are cut.

    Args:
        run: what it belongs to.
        child: whose rows.
        skipped: rows of its first unit that come before.
    """

    def __init__(self, run: Run, child: Level, skipped: int = 0) -> None:
        super().__init__(run, child, 64)
        self.offset = skipped
        self.row_bytes = 0.0
        """The largest size of a row that has been seen, on average over a unit."""
        self._counted = self._rows = 0  # units at the front that are known to have so many rows

    def known(self, wanted: int) -> int | None:
        """How many rows can be cut, up to `wanted`: fewer at the end only. None: not known yet."""
        self._count(wanted)
        if self._rows < self.offset + wanted:
            self.fill(counted=self._counted)
            self._count(wanted)
        rows = self._rows - self.offset
        if rows < wanted and not (self._counted == len(self.units) and self.is_over):
            return None
        return min(rows, wanted)

    def _count(self, wanted: int) -> None:
        """Add up the units that have been made, in their order, until they have enough rows."""
        while self._rows < self.offset + wanted and self._counted < len(self.units):
            facts = self.units[self._counted].settled
            if facts is None:
                return
            self._counted += 1
            self._rows += facts.rows
            if facts.rows:
                self.row_bytes = max(self.row_bytes, facts.bytes / facts.rows)

    def take(self) -> Unit:
        """The first unit as a whole, which has been made; it is here no more."""
        unit = self.units.popleft()
        if self._counted:
            assert unit.facts is not None
            self._counted -= 1
            self._rows -= unit.facts.rows
        return unit

    def head(self) -> Unit | Answer:
        """The first unit, once it is made; it stays."""
        if not self.units or self.units[0].settled is None:
            self.fill()
        if self.units:
            return Answer.LATER if self.units[0].settled is None else self.units[0]
        return Answer.END if self.is_over else Answer.LATER

    def head_with_rows(self) -> Unit | Answer:
        """The first unit with a row, once it is made; those without are passed over."""
        head = self.head()
        while isinstance(head, Unit) and head.facts is not None and not head.facts.rows:
            self.run.use_up(self.take())
            head = self.head()
        return head

    def size_of(self, rows: int) -> int:
        """Bytes that the next rows take."""
        size, left, offset = 0.0, rows, self.offset
        for unit in self.units:
            if left <= 0 or unit.settled is None:
                break
            share = min(unit.settled.rows - offset, left)
            size += unit.settled.bytes * share / max(unit.settled.rows, 1)
            left, offset = left - share, 0
        return int(size)

    def finish(self) -> None:
        """The level has ended, and no row is wanted of the units that are left."""
        while self.units:
            self.run.use_up(self.take())

    def cursor(self) -> list[Any]:
        """[rows to skip, the child's cursor] of the next row, which there must be."""
        return [self.offset, self.units[0].cursor]

    def cut(self, rows: int) -> tuple[list[Stretch], list[Unit]]:
        """Take the next rows, known ones and one at least; return where they lie, and the units that are done with."""
        stretches, finished = [], []
        while self.units:
            unit = self.units[0]
            assert unit.facts is not None
            stop = min(self.offset + rows, unit.facts.rows)
            if stop > self.offset:
                stretches.append((unit, self.offset, stop))
            rows -= stop - self.offset
            if stop < unit.facts.rows:
                self.offset = stop
                break
            self.offset = 0
            finished.append(self.take())
            if not rows:
                break
        return stretches, finished


def arguments_of(stretches: Sequence[Stretch], first: int = 0) -> tuple[list[Unit], tuple[Slice, ...]]:
    """The units of stretches, and the same stretches as slices of arguments, numbered from `first`."""
    units = [unit for unit, _, _ in stretches]
    slices = [Slice(first + index, start, stop) for index, (_, start, stop) in enumerate(stretches)]
    return units, tuple(slices)
