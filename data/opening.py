"""From a plan to levels that are at work."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import runtime
from ..runtime import human_bytes
from .barriers import Aggregated, Sorted
from .credits import Estimate
from .errors import BudgetError
from .flow import Cursor, Level, Run
from .grouping import aggregate_unit
from .levels import Actors, Applied, Chained, Pieces, Stage, Taken, Windows, Zipped, naming
from .order import permutation
from .plan import (
    Aggregate,
    Apply,
    Batch,
    Function,
    Plan,
    Read,
    Repeat,
    Resources,
    Shuffle,
    Sort,
    Take,
    Union,
    Write,
    Zip,
    children_of,
    count_stages,
)
from .rows import Rows
from .sorting import sort_block
from .sources import Piece
from .steps import FunctionActor, Work, apply_functions
from .writing.level import Written

_FUSING = (Read, Shuffle, Batch, Zip, Sort, Aggregate)
"""Stages whose own tasks apply the functions that follow."""


class Opening:
    """Opens the stages of a plan for one run, at an epoch and a cursor."""

    def __init__(self, plan: Plan, run: Run) -> None:
        self.plan, self.run = plan, run
        self.skip = any(read.skip for read in reads_of(plan))

    def open(self, epoch: int, cursor: Cursor) -> Level:
        """The whole plan."""
        return self._open(self.plan, cursor, Below(self, 0, epoch, None))

    def pieces(self, read: Read) -> tuple[Piece, ...]:
        """The pieces of a source, which is asked once."""
        found: tuple[Piece, ...] = self.run.shared(read, "pieces", read.source.pieces)
        return found

    def _open(self, plan: Plan, cursor: Cursor, place: Below) -> Level:
        """One stage and all below it."""
        base, functions = fused(plan)
        number = place.first + count_stages(plan)
        stage = self._stage(plan, base, functions, place.depth, number)
        below, epoch = replace(place, depth=place.depth + 1), place.epoch
        level: Level
        match base:
            case Read():
                level = Pieces(stage, self._pieces(base, epoch, place.seed), epoch, cursor)
            case Apply(child):
                level = self._applied(stage, plan, number, functions, below.open(child, cursor))
            case Shuffle(child, own, 1):  # within windows of one row there is nothing to permute
                applied = self.run.shared(plan, "applied", lambda: functools.reduce(Apply, functions, child))
                level = replace(below, seed=own).open(applied, cursor)
            case Shuffle(child, own, window):
                index, skipped, at = cursor or (0, 0, None)
                rows = Rows(self.run, replace(below, seed=own).open(child, at), skipped)
                level = Windows(stage, rows, window, drop_last=False, seed=own, epoch=epoch, index=index)
            case Batch(child, size, drop_last):
                index, skipped, at = cursor or (0, 0, None)
                rows = Rows(self.run, below.open(child, at), skipped)
                level = Windows(stage, rows, size, drop_last=drop_last, seed=None, epoch=epoch, index=index)
            case Take(child, count):
                left, at = cursor or (count, None)
                level = Taken(stage, Rows(self.run, below.open(child, at)), left)
            case Zip(left_plan, right_plan):
                left_at, skipped, right_at = cursor or (None, 0, None)
                left_rows = Rows(self.run, below.open(left_plan, left_at))
                right_rows = Rows(self.run, below.after(left_plan).open(right_plan, right_at), skipped)
                level = Zipped(stage, left_rows, right_rows)
            case Union(children):
                level = Chained(functools.partial(below.child_of, children), cursor)
            case Repeat(child, epochs):
                level = Chained(functools.partial(below.epoch_of, child, epochs), cursor, repeats=True)
            case Write(child, target):
                level = Written(stage, Rows(self.run, below.open(child, None)), target)
            case Sort(child, keys, descending):
                local = functools.partial(sort_block, keys=keys, descending=descending)
                level = Sorted(stage, self._each(base, local, below), base, epoch, cursor)
            case Aggregate(child, keys, aggregates):
                local = functools.partial(aggregate_unit, keys=keys, aggregates=aggregates)
                level = Aggregated(stage, self._each(base, local, below), base, epoch, cursor)
        return level

    def _each(self, plan: Sort | Aggregate, call: functools.partial[Any], below: Below) -> Level:
        """The child's units after a function of ours on each."""
        function = Function("map_batches", call, batch_format="pyarrow")
        applied = self.run.shared(plan, "each", lambda: Apply(plan.child, function))
        return replace(below, seed=None).open(applied, None)

    def _applied(self, stage: Stage, plan: Plan, number: int, functions: Sequence[Function], child: Level) -> Level:
        assert isinstance(plan, Apply)
        made = functools.partial(self._actors, plan, number)
        actors = self.run.shared(plan, f"actors {number}", made) if plan.actors else None
        names = ", ".join(function.name for function in functions)
        task = apply_functions.options(name=names, **plan.resources.options())
        return Applied(stage, child, task, actors, names)

    def _actors(self, plan: Apply, number: int) -> Actors:
        cpus, wanted = runtime.cluster_resources().get("CPU", 0), plan.actors * plan.resources.num_cpus
        if wanted > cpus - 1:
            raise runtime.InputError(
                f"{plan.function.name}: {plan.actors} actors of {plan.resources.num_cpus:g} CPUs would leave less than "
                f"one of {cpus:g} to read with. Have fewer (concurrency) or smaller ones (num_cpus)"
            )
        made: Any = FunctionActor
        made = made.options(max_restarts=-1, max_task_retries=-1, **plan.resources.options())
        with naming(plan.function.name):
            return Actors([made.remote(plan.function, self.skip, number) for _ in range(plan.actors)])

    def _stage(self, plan: Plan, base: Plan, functions: Sequence[Function], depth: int, number: int) -> Stage:
        source = base.source if isinstance(base, Read) else None
        held = isinstance(plan, Apply) and plan.actors  # its function is called by actors, not by its tasks
        work = Work(source, self.skip, () if held else tuple(functions), number)
        shared = self.run.shared(plan, f"work {number}", lambda: runtime.put(work))
        return Stage(self.run, depth, shared, self.run.shared(plan, f"estimate {number}", Estimate))

    def _pieces(self, plan: Read, epoch: int, seed: int | None) -> Sequence[Piece]:
        pieces = self.pieces(plan)
        for piece in pieces:
            if (piece.bytes or 0) > self.run.credits.budget:
                raise BudgetError(
                    f"{piece} takes {human_bytes(piece.bytes or 0)}, which is more than the memory budget of "
                    f"{human_bytes(self.run.credits.budget)}, and nothing smaller can be read by itself. Raise it "
                    "(options(memory=…)), read fewer columns, or write the file in smaller pieces"
                )
        if seed is None:
            return pieces
        return [pieces[index] for index in permutation(len(pieces), seed, "pieces", epoch)]


@dataclass(frozen=True)
class Below:
    """How the children of a stage are opened."""

    opening: Opening
    depth: int
    epoch: int
    seed: int | None
    """Of the shuffle that permutes pieces."""
    first: int = 0
    """How many stages of the plan come before theirs, counted from its sources. So a stage has a number of its own, and
    keeps it whatever stages are written after it."""

    def open(self, plan: Plan, cursor: Cursor) -> Level:
        """A child, at a cursor."""
        return self.opening._open(plan, cursor, self)

    def after(self, *others: Plan) -> Below:
        """How a child is opened that has others before it."""
        return replace(self, first=self.first + sum(map(count_stages, others)))

    def child_of(self, children: Sequence[Plan], index: int, cursor: Cursor) -> Level | None:
        """Child number `index`; None behind the last one."""
        return self.after(*children[:index]).open(children[index], cursor) if index < len(children) else None

    def epoch_of(self, child: Plan, epochs: int | None, index: int, cursor: Cursor) -> Level | None:
        """Epoch number `index` of a child; None behind the last one."""
        if epochs is not None and index >= epochs:
            return None
        before = self.epoch * (epochs or 1)  # another one for each epoch of what repeats in turn
        return replace(self, epoch=before + index).open(child, cursor)


def fused(plan: Plan) -> tuple[Plan, list[Function]]:
    """The stage at the root whose tasks apply the functions that follow it, and these; an `Apply` if none can."""
    base, functions = plan, list[Function]()
    while isinstance(base, Apply) and not base.actors and base.resources == Resources():
        functions.insert(0, base.function)
        base = base.child
    if functions and not isinstance(base, _FUSING):
        return Apply(base, functions[-1]), functions
    return base, [base.function] if isinstance(base, Apply) else functions


def reads_of(plan: Plan) -> list[Read]:
    """The reading stages of a plan."""
    return [plan] if isinstance(plan, Read) else [read for child in children_of(plan) for read in reads_of(child)]


def aside_of(plan: Plan) -> str | None:
    """The file that takes bad rows."""
    return next((read.aside for read in reads_of(plan) if read.aside is not None), None)
