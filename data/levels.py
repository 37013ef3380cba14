"""The levels of a plan at work: each starts its units in order, one at a `pull`, and never waits.

A unit's cursor says where its level is opened for that unit to come first. It is made of numbers and of the cursors of
the children, so the cursor of the last level is all that resuming takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import runtime
from .credits import Estimate
from .flow import Answer, Cursor, Grant, Level, Run, Unit
from .rows import Rows, arguments_of
from .sources import Piece
from .steps import Cut, Work, cut_blocks, read_piece


@dataclass
class Stage:
    """What a level shares with the same level in other epochs, and where it stands."""

    run: Run
    depth: int
    """Levels between this one and whoever iterates."""
    work: runtime.ObjectRef[Work]
    estimate: Estimate

    def grant(self, declared: int | None, name: str) -> Grant | None:
        """Memory for a unit that takes about `declared` bytes; None: not now."""
        return self.run.grant(self.estimate, declared, self.depth, name)

    def launch(
        self,
        grant: Grant,
        submitted: Sequence[runtime.ObjectRef],
        *,
        name: str,
        epoch: int,
        cursor: Cursor,
        inputs: Sequence[Unit] = (),
        finished: Sequence[Unit] = (),
    ) -> Unit:
        """The unit that a task makes. `finished` are inputs from which no other one will be made."""
        meta, block = submitted
        unit = self.run.started(Unit(meta, block, name, epoch, cursor, grant, self.estimate, inputs))
        for given in finished:
            self.run.use_up(given)
        return unit

    def cut(
        self,
        rows: Rows,
        count: int,
        *,
        name: str,
        epoch: int,
        cursor: Cursor,
        key: tuple[int, int, int] | None = None,
        beside: Unit | None = None,
    ) -> Unit | Answer:
        """Start a unit of the next `count` rows, if there is memory for it: permuted, or beside a unit."""
        size = rows.size_of(count) + (0 if beside is None else beside.size)
        self.run.credits.keep_back(self.depth, size)
        grant = self.grant(size, name)
        if grant is None:
            return Answer.LATER
        stretches, finished = rows.cut(count)
        units, slices = arguments_of(stretches)
        cut = Cut(slices, key=key)
        if beside is not None:
            assert beside.facts is not None
            units, right = arguments_of(stretches, first=1)
            units, finished = [beside, *units], [beside, *finished]
            cut = Cut(arguments_of([(beside, 0, beside.facts.rows)])[1], beside=right)
        refs = cut_blocks.remote(self.work, cut, name, *(unit.block for unit in units))
        return self.launch(grant, refs, name=name, epoch=epoch, cursor=cursor, inputs=units, finished=finished)


class Pieces:
    """The pieces of a source, in the order of an epoch.

    Args:
        stage: what it belongs to.
        pieces: in the order of the epoch.
        epoch: which one.
        cursor: [index of the first].
    """

    def __init__(self, stage: Stage, pieces: Sequence[Piece], epoch: int, cursor: Cursor) -> None:
        self.stage, self.pieces, self.epoch = stage, pieces, epoch
        self.index: int = cursor[0] if cursor else 0

    def pull(self) -> Unit | Answer:
        """Read the next piece."""
        if self.index == len(self.pieces):
            return Answer.END
        piece, stage = self.pieces[self.index], self.stage
        grant = stage.grant(piece.bytes, str(piece))
        if grant is None:
            return Answer.LATER
        name, cursor = f"piece {self.index} of epoch {self.epoch}", [self.index]
        self.index += 1
        return stage.launch(
            grant, read_piece.remote(stage.work, piece, name), name=name, epoch=self.epoch, cursor=cursor
        )

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def naming(functions: str) -> Iterator[None]:
    """Have the user's functions named where what runs them asks for more than there is."""
    try:
        yield
    except runtime.exceptions.InfeasibleError as error:
        raise runtime.exceptions.InfeasibleError(f"{functions}: {error}") from None


class Actors:
    """The actors of a stage, each with an object of the user's class."""

    def __init__(self, handles: Sequence[Any]) -> None:
        self.handles = handles
        self.sent: list[list[Unit]] = [[] for _ in handles]

    def next(self) -> int:
        """The actor with the fewest calls that have not ended. Whichever it is, the result is the same."""
        self.sent = [[unit for unit in units if unit.facts is None and unit.failure is None] for units in self.sent]
        return min(range(len(self.sent)), key=lambda index: len(self.sent[index]))


class Applied:
    """Units of another level after functions that run by themselves: on other resources, or in actors."""

    def __init__(self, stage: Stage, child: Level, task: Any, actors: Actors | None, functions: str) -> None:
        self.stage, self.child, self.task, self.actors, self.functions = stage, child, task, actors, functions
        self.waiting: Unit | None = None

    def pull(self) -> Unit | Answer:
        """Apply the functions to the child's next unit, which may still be in the making."""
        if self.waiting is None:
            answer = self.child.pull()
            if isinstance(answer, Answer):
                return answer
            self.waiting = answer
        given, stage = self.waiting, self.stage
        name = f"{given.name}, {self.functions}"
        stage.run.credits.keep_back(stage.depth, int(given.size * stage.estimate.factor))
        grant = stage.grant(given.size, name)
        if grant is None:
            return Answer.LATER
        self.waiting = None
        chosen = 0 if self.actors is None else self.actors.next()
        if self.actors is None:
            with naming(self.functions):
                refs = self.task.remote(stage.work, given.meta, given.block, name)
        else:
            refs = self.actors.handles[chosen].apply.remote(given.meta, given.block, name)
        unit = stage.launch(grant, refs, name=name, epoch=given.epoch, cursor=given.cursor, inputs=[given])
        stage.run.let_go(given)  # its bad rows are among those of the new unit
        if self.actors is not None:
            self.actors.sent[chosen].append(unit)
        return unit

    def close(self) -> None:
        """Let go of the unit that waits for memory."""
        if self.waiting is not None:
            self.stage.run.let_go(self.waiting)
            self.waiting = None
        self.child.close()


class Windows:
    """Units of `size` rows each, permuted or not.

    Args:
        stage: what it belongs to.
        rows: those of the child.
        size: rows of each; the last one may have fewer.
        drop_last: leave the last one out if it does.
        seed: of the permutation; None: rows stay in their order.
        epoch: which one.
        index: number of the first unit.
    """

    def __init__(
        self, stage: Stage, rows: Rows, size: int, *, drop_last: bool, seed: int | None, epoch: int, index: int
    ) -> None:
        self.stage, self.rows, self.size, self.drop_last = stage, rows, size, drop_last
        self.seed, self.epoch, self.index = seed, epoch, index

    def pull(self) -> Unit | Answer:
        """Start the next one."""
        if row_bytes := self.rows.row_bytes:
            self.stage.run.credits.keep_back(self.stage.depth, int(self.size * row_bytes))
        count = self.rows.known(self.size)
        if count is None:
            return Answer.LATER
        if count == 0 or (count < self.size and self.drop_last):
            self.rows.finish()
            return Answer.END
        what = "batch" if self.seed is None else "window"
        epoch = self.rows.units[0].epoch
        key = None if self.seed is None else (self.seed, self.epoch, self.index)
        name = f"{what} {self.index} of epoch {self.epoch}"
        cursor = [self.index, *self.rows.cursor()]
        unit = self.stage.cut(self.rows, count, name=name, epoch=epoch, cursor=cursor, key=key)
        if isinstance(unit, Unit):
            self.index += 1
        return unit

    def close(self) -> None:
        """Let go of the rows ahead."""
        self.rows.close()


class Taken:
    """The first rows; units pass as they are until one has more than are left."""

    def __init__(self, stage: Stage, rows: Rows, left: int) -> None:
        self.stage, self.rows, self.left = stage, rows, left

    def pull(self) -> Unit | Answer:
        """Hand the next unit over, or start the one that is cut off."""
        head = self.rows.head() if self.left else Answer.END
        if isinstance(head, Answer):
            return head
        assert head.facts is not None
        cursor, count = [self.left, head.cursor], min(head.facts.rows, self.left)
        if count == head.facts.rows:
            self.rows.take()
            head.cursor = cursor
            self._took(count)
            return head
        name = f"the first rows of {head.name}"
        unit = self.stage.cut(self.rows, count, name=name, epoch=head.epoch, cursor=cursor)
        if isinstance(unit, Unit):
            self.stage.run.use_up(self.rows.take())
            self._took(count)
        return unit

    def _took(self, rows: int) -> None:
        self.left -= rows
        if not self.left:
            self.close()

    def close(self) -> None:
        """Let go of the rows ahead."""
        self.rows.close()


class Zipped:
    """Units of the left level with the rows of the right one beside them."""

    def __init__(self, stage: Stage, left: Rows, right: Rows) -> None:
        self.stage, self.left, self.right = stage, left, right

    def pull(self) -> Unit | Answer:
        """Start the next one. Raises InputError if one side has fewer rows than the other."""
        # Units without rows are passed over: beside them nothing lies that a cursor could name.
        head = self.left.head_with_rows()
        if head is Answer.LATER:
            self.right.fill()
            return head
        wanted = head.facts.rows if isinstance(head, Unit) and head.facts else 1
        count = self.right.known(wanted)
        if count is None:
            return Answer.LATER
        if isinstance(head, Answer):
            if count:
                raise runtime.InputError("zip: the right side has more rows than the left. Take as many of both")
            self.right.finish()
            return Answer.END
        if count < wanted:
            raise runtime.InputError("zip: the left side has more rows than the right. Take as many of both")
        cursor = [head.cursor, *self.right.cursor()]
        unit = self.stage.cut(self.right, count, name=head.name, epoch=head.epoch, cursor=cursor, beside=head)
        if isinstance(unit, Unit):
            self.left.take()
        return unit

    def close(self) -> None:
        """Let go of the rows ahead on both sides."""
        self.left.close()
        self.right.close()


class Chained:
    """Levels one after the other: those of a union, or the epochs of one.

    Args:
        open_child: opens child number i, at a cursor or at its beginning; None: there is no such child.
        cursor: [number of the first child, its cursor].
        repeats: the children are the same again and again, so one without a row is the end.
    """

    def __init__(
        self, open_child: Callable[[int, Cursor], Level | None], cursor: Cursor, repeats: bool = False
    ) -> None:
        self.open_child = open_child
        self.index: int = cursor[0] if cursor else 0
        below: Cursor = cursor[1] if cursor else None
        self.child = open_child(self.index, below)
        self.has_row = not repeats or below is not None
        self.unknown: list[Unit] = []

    def pull(self) -> Unit | Answer:
        """Start the next unit of the child, or the first one of the next child."""
        while self.child is not None:
            answer = self.child.pull()
            if isinstance(answer, Unit):
                if not self.has_row:
                    self.unknown.append(answer)
                answer.cursor = [self.index, answer.cursor]
                return answer
            if answer is Answer.LATER:
                return answer
            # The first epoch has to show a row before there is another one, else there would be no end to it.
            self.has_row = self.has_row or any(unit.facts is not None and unit.facts.rows for unit in self.unknown)
            if not self.has_row:
                made = all(unit.facts is not None or unit.failure is not None for unit in self.unknown)
                return Answer.END if made else Answer.LATER
            self.unknown = []
            self.index += 1
            self.child = self.open_child(self.index, None)
        return Answer.END

    def close(self) -> None:
        """Close the child that is open."""
        if self.child is not None:
            self.child.close()
            self.child = None
