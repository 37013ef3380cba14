"""What runs in the workers: a piece is read, rows of several blocks are cut into a new one, functions are applied.

Each step is a function of its arguments alone. So a step of a worker that died is simply run again, and gives the same.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from .. import runtime
from ..runtime import InputTypeError
from .blocks import batch_in, compact, joined, rows_of, table_of, table_of_rows
from .errors import BadRow, BadRows
from .order import key, permutation
from .plan import Function
from .sources import Piece, Source


@dataclass(frozen=True)
class Meta:
    """What the driver needs to know of a block."""

    rows: int
    bytes: int
    where: str
    """The piece or window that it is, for errors."""
    bad: int = 0
    bad_rows: tuple[BadRow, ...] = ()


@dataclass(frozen=True)
class Work:
    """What all units of a level have in common."""

    source: Source | None
    skip: bool
    functions: tuple[Function, ...]
    number: int
    """Which stage of the plan it is: units of several have the same names."""


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `stop` of the block that is argument number `block` of a step."""

    block: int
    start: int
    stop: int


@dataclass(frozen=True)
class Cut:
    """How a new block is made of others: rows after each other, side by side with others, permuted by a key."""

    slices: tuple[Slice, ...]
    beside: tuple[Slice, ...] = ()
    key: tuple[int, int, int] | None = None
    """(seed, epoch, window)."""


Result = tuple[Meta, pa.Table]


@runtime.remote(num_returns=2)
def read_piece(work: Work, piece: Piece, unit: str) -> Result:
    """Read a piece and apply the functions that are next. `unit` is its name among those of all epochs."""
    assert work.source is not None
    bad = BadRows(piece.path, work.skip)
    table = joined(work.source.read(piece, bad))
    return _finish(table, work, bad, str(piece), unit)


@runtime.remote(num_returns=2)
def cut_blocks(work: Work, cut: Cut, unit: str, *blocks: pa.Table) -> Result:
    """Make a block of rows of others and apply the functions that are next."""
    table = _cut(blocks, cut.slices)
    if cut.beside:
        right = _cut(blocks, cut.beside)
        for name in right.column_names:
            table = table.append_column(_free_name(name, table.column_names), right[name])
    if cut.key is not None:
        seed, epoch, window = cut.key
        # In one piece first: pyarrow gathers from several chunks many times slower.
        table = table.combine_chunks().take(pa.array(permutation(table.num_rows, seed, "window", epoch, window)))
    return _finish(table, work, BadRows(unit, work.skip), unit, unit)


@runtime.remote(num_returns=2)
def apply_functions(work: Work, meta: Meta, block: pa.Table, unit: str) -> Result:
    """Apply functions to a block, in a task of its own since they ask for other resources than what made it."""
    return _then(meta, _finish(block, work, BadRows(meta.where, work.skip), meta.where, unit))


@runtime.remote(num_returns=2)
def run_on_blocks(work: Work, call: Callable[..., pa.Table], unit: str, *blocks: pa.Table) -> Result:
    """Make a block of all that `call` is given and apply the functions that are next."""
    return _finish(call(*blocks), work, BadRows(unit, work.skip), unit, unit)


@runtime.remote
class FunctionActor:
    """Holds the object of a user's class, such as a model, and applies it to blocks."""

    def __init__(self, function: Function, skip: bool, number: int) -> None:
        held = function.call(*function.arguments, **function.keywords)
        bound = Function(function.kind, held, function.batch_size, function.batch_format)
        self._work = Work(None, skip, (bound,), number)

    @runtime.method(num_returns=2)
    def apply(self, meta: Meta, block: pa.Table, unit: str) -> Result:
        """Apply it to a block."""
        return _then(meta, _finish(block, self._work, BadRows(meta.where, self._work.skip), meta.where, unit))


def _cut(blocks: Sequence[pa.Table], slices: Sequence[Slice]) -> pa.Table:
    return joined([blocks[part.block].slice(part.start, part.stop - part.start) for part in slices])


def _free_name(name: str, taken: Sequence[str]) -> str:
    number = 1
    free = name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def _finish(table: pa.Table, work: Work, bad: BadRows, where: str, unit: str) -> Result:
    with _seeded(work.number, unit) if work.functions else nullcontext():
        for function in work.functions:
            table = apply(function, table, bad, where)
    table = compact(table)
    # Freed memory would stay with the worker otherwise, beside what it reads next.
    pa.default_memory_pool().release_unused()
    return Meta(table.num_rows, table.nbytes, where, bad.count, tuple(bad.rows)), table


def _then(before: Meta, result: Result) -> Result:
    """The result of a step on a block, with the bad rows that were found on the way to it."""
    meta, table = result
    return replace(meta, bad=before.bad + meta.bad, bad_rows=before.bad_rows + meta.bad_rows), table


def apply(function: Function, table: pa.Table, bad: BadRows, where: str) -> pa.Table:
    """The rows of a table after a function. What it raises passes, with a note that names function and row."""
    if table.num_rows == 0:
        return table
    call: Callable[..., Any] = function.call
    if function.kind == "map_batches":
        size = function.batch_size or table.num_rows
        starts = range(0, table.num_rows, size)
        return joined([_batch(function, table.slice(start, size), start, where) for start in starts])
    results = list(_on_rows(function, call, table, bad, where))
    if function.kind == "filter":
        kept = np.zeros(table.num_rows, np.bool_)
        kept[[index for index, keep in results if keep]] = True
        return table.filter(pa.array(kept))
    rows = [row for _, made in results for row in (made if function.kind == "flat_map" else (made,))]
    try:
        return table_of_rows(rows)
    except Exception as error:
        error.add_note(f"in {function.name}, of {where}")
        raise


def _on_rows(
    function: Function, call: Callable[..., Any], table: pa.Table, bad: BadRows, where: str
) -> Iterator[tuple[int, Any]]:
    for index, row in enumerate(rows_of(table)):
        try:
            result = _of_kind(function.kind, call(row, *function.arguments, **function.keywords))
        except Exception as error:
            place = f"row {index}" if bad.path == where else f"row {index} of {where}"
            if not bad.skip:
                error.add_note(f"in {function.name}, row {index} of {where}")
                raise
            bad.add(place, f"{function.name}: {error!r}", raw=repr(row))
        else:
            yield index, result


def _of_kind(kind: str, result: Any) -> Any:
    """What a function of a row returned, if it is what the stage takes."""
    if kind == "filter":
        return bool(result)
    if kind == "map" and not isinstance(result, Mapping):
        raise InputTypeError(f"it returned {result!r:.60}; a dictionary of values by column is wanted")
    if kind == "flat_map":
        result = list(result)
        for row in result:
            if not isinstance(row, Mapping):
                raise InputTypeError(f"it returned a row that is {row!r:.60}; a dictionary is wanted")
    return result


def _batch(function: Function, table: pa.Table, start: int, where: str) -> pa.Table:
    try:
        batch = batch_in(table, function.batch_format)
        result = function.call(batch, *function.arguments, **function.keywords)
        made = result if isinstance(result, Iterator) else (result,)
        return joined([table_of_rows(part) if isinstance(part, list) else table_of(part) for part in made])
    except Exception as error:
        error.add_note(f"in {function.name}, rows {start} to {start + table.num_rows - 1} of {where}")
        raise


@contextmanager
def _seeded(stage: int, unit: str) -> Iterator[None]:
    """Have the generators that functions may draw from (random, numpy's, torch's) depend on stage and unit alone."""
    torch: Any = sys.modules.get("torch")
    seed = key(0, unit, stage)
    before = random.getstate(), np.random.get_state()
    torch_before = torch.get_rng_state() if torch else None
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch:
        torch.manual_seed(seed % 2**63)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch:
            torch.set_rng_state(torch_before)
