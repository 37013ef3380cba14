"""Datasets: plans that are written stage by stage, and read as batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Never

import pyarrow as pa

from ..runtime import InputError, InputTypeError, TeachesNames, as_int, nearest, refuse_unknown
from .arguments import check_format, column_names, positive
from .blocks import joined, require_columns, rows_of
from .elsewhere import DATASET, GROUPS, OPTIONS, READING
from .grouping import FUNCTIONS
from .plan import (
    Aggregate,
    Apply,
    Batch,
    Function,
    Plan,
    Repeat,
    Resources,
    Shuffle,
    Sort,
    Take,
    Union,
    Write,
    Zip,
    is_endless,
    known_columns,
    outline,
)
from .plan import fingerprint as fingerprint_of
from .reader import Batches, Batching, Options, Share, Stats
from .steps import apply_functions
from .torch_batches import TorchBatches
from .writing.methods import Writing
from .writing.target import Target

Rows = dict[str, Any]
_READING_OPTIONS = ("batch_size", "drop_last", "epoch", "state")


@dataclass(frozen=True)
class Dataset(Writing, TeachesNames):
    """Rows with named columns, from a source through stages. A value: each stage returns a new one, nothing runs yet.

    Rows come in an order that depends on the plan and the epoch alone: not on readers, deaths of workers, engine or
    memory.
    """

    names_elsewhere = DATASET

    plan: Plan
    reading: Options = field(default_factory=Options)
    share: Share = field(default_factory=Share)

    def __repr__(self) -> str:
        share = "" if self.share.of == 1 else f", share {self.share.index} of {self.share.of}"
        return f"Dataset({outline(self.plan)}{share})"

    # Stages

    def map(self, fn: Callable[..., Rows], **options: Any) -> Dataset:
        """Replace each row by what `fn` makes of it: a dictionary of values by column.

        Options of this and the other stages with functions: `num_cpus` (1), `num_gpus` and `resources` (by name) that
        a call holds, `fn_args` and `fn_kwargs`, which it gets after the row or batch. Functions find `random`, numpy's
        and torch's generators seeded by stage, epoch and piece, so random augmentations are the same for any readers.
        """
        return self._apply("map", fn, options)

    def map_batches(
        self,
        fn: Callable[..., Any] | type,
        *,
        batch_size: int | None = None,
        batch_format: Literal["numpy", "pyarrow", "rows"] = "numpy",
        concurrency: int | None = None,
        **options: Any,
    ) -> Dataset:
        """Replace batches of rows by what `fn` makes of them; they may get more or fewer rows.

        Args:
            fn: takes columns by name as arrays [n, …], a `pyarrow.Table` or a list of rows, and returns one of them, or
                yields several. A class is constructed once in each of `concurrency` actors, and its objects are called:
                so a model is loaded once. Its result for a batch must not depend on the batches before.
            batch_size: rows of each batch at most; None: all that are read together. Batches end where pieces (row
                groups, files, windows) end; after `batch(n)` a batch is one of these.
            batch_format: what `fn` takes: "numpy", "pyarrow" or "rows".
            concurrency: actors for a class; default 1. Each reading starts its own, one that is resumed, too.
            options: as for `map`; `fn_args` and `fn_kwargs` of a class are those of its constructor, and each actor
                holds its resources as long as the dataset is read (num_cpus: 0 by default, as of all actors).
        """
        check_format(batch_format)
        size = None if batch_size is None else positive("batch_size", batch_size)
        actors = 0
        if _is_class_of_functions(fn):
            actors = positive("concurrency", 1 if concurrency is None else concurrency)
        elif concurrency is not None:
            raise InputError("concurrency is for classes, which actors hold: options(readers=…) bounds tasks")
        return self._apply("map_batches", fn, options, batch_size=size, batch_format=batch_format, actors=actors)

    def filter(self, fn: Callable[..., bool], **options: Any) -> Dataset:
        """Keep the rows for which `fn` returns something true; options as for `map`."""
        return self._apply("filter", fn, options)

    def flat_map(self, fn: Callable[..., Sequence[Rows]], **options: Any) -> Dataset:
        """Replace each row by the rows that `fn` makes of it; options as for `map`."""
        return self._apply("flat_map", fn, options)

    def shuffle(self, seed: int = 0, window: int = 10_000) -> Dataset:
        """Permute the pieces of the sources, then the rows within windows of `window` rows; anew in each epoch.

        A window is held in memory as a whole, and is what is read again when reading is resumed in the middle of it.
        With `window=1` pieces alone are permuted, and nothing is held.
        """
        number = as_int(seed)
        if number is None:
            raise InputTypeError(f"shuffle: seed={seed!r}: an integer is wanted")
        return self._with(Shuffle(self.plan, number, positive("window", window)))

    def repeat(self, epochs: int | None = None) -> Dataset:
        """Read it `epochs` times; None: without end. Batches after it cross from one epoch into the next.

        Its epoch number e is the epochs e · `epochs` + 0, 1, … of what it reads, so none comes twice.
        """
        return self._with(Repeat(self.plan, None if epochs is None else positive("epochs", epochs)))

    def take(self, rows: int) -> Dataset:
        """The first `rows` rows of each epoch."""
        count = as_int(rows)
        if count is None or count < 0:
            raise InputError(f"take: {rows!r}: a number of rows ≥ 0 is wanted")
        return self._with(Take(self.plan, count))

    def batch(self, size: int, drop_last: bool = False) -> Dataset:
        """Units of `size` rows: what `map_batches` gets then, and `iter_batches` gives where none is asked for."""
        return self._with(Batch(self.plan, positive("size", size), bool(drop_last)))

    def zip(self, other: Dataset) -> Dataset:
        """The columns of both side by side, of as many rows; a name that both have ends in "_1" in the second."""
        return self._with(Zip(self.plan, _dataset("zip", other).plan))

    def union(self, *others: Dataset) -> Dataset:
        """The rows of this and then of the others. A column that one lacks is null in a batch that has rows of both."""
        return self._with(Union((self.plan, *(_dataset("union", other).plan for other in others))))

    def sort(self, key: str | Sequence[str], descending: bool = False) -> Dataset:
        """All rows by one or several columns; equal ones stay in their order, NaN and null come last.

        All of them are gathered in the object store first, which moves to disk what it has no room for.
        """
        names = column_names("sort", key)
        _require_known(self.plan, "sort", names)
        return self._with(Sort(self.plan, names, bool(descending)))

    def groupby(self, key: str | Sequence[str]) -> Groups:
        """The rows in groups of equal keys, of which `aggregate` makes a row each."""
        names = column_names("groupby", key)
        _require_known(self.plan, "groupby", names)
        return Groups(self, names)

    def split(self, k: int) -> list[Dataset]:
        """`k` datasets, of which number i gives the batches i, i + k, …; all of them equally many.

        Batches are numbered as in the whole, after its shuffling. Up to k − 1 last ones are left out. Each of the k
        reads the whole, since nearly every piece and window holds batches of all: it belongs where a learner reads for
        itself, and reading costs less than learning. Else let one reader hand its batches to all, by reference.
        """
        count = positive("k", k)
        if self.share.of > 1:
            raise InputError("split: this is a share of a split already. Split the whole dataset")
        return [replace(self, share=Share(index, count)) for index in range(count)]

    def options(self, *, memory: int | None = None, readers: int | None = None) -> Dataset:
        """How it is read; changes nothing of what is read.

        Args:
            memory: bytes that blocks and running tasks may take together; default 1 GiB.
            readers: tasks that may run at the same time in each stage; default: one for each CPU.
        """
        reading = self.reading
        if memory is not None:
            reading = replace(reading, memory=positive("memory", memory))
        if readers is not None:
            reading = replace(reading, readers=positive("readers", readers))
        return replace(self, reading=reading)

    # Reading

    def iter_batches(
        self,
        batch_size: int | None = None,
        *,
        batch_format: Literal["numpy", "pyarrow", "rows"] = "numpy",
        drop_last: bool = False,
        epoch: int = 0,
        state: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> Batches:
        """Read it, batch by batch.

        Args:
            batch_size: rows of each; None: those of `batch(n)` if that is the last stage, else as they were read.
            batch_format: "numpy" (arrays by column, views of shared memory where that can be; read-only then),
                "pyarrow" (a table) or "rows" (a list of dictionaries).
            drop_last: leave a last batch of fewer rows out.
            epoch: which one; it is what shuffling and random functions depend on.
            state: of an earlier iterator's `state()`: go on behind its last batch, with the same bits.

        Raises:
            InputError: a bad argument, or a state of another plan.
            DataError: a row that cannot be read.
            BudgetError: a piece or window does not fit into the memory budget.
        """
        refuse_unknown("iter_batches has no option", unknown, (*_READING_OPTIONS, "batch_format"), READING)
        check_format(batch_format)
        size = None if batch_size is None else positive("batch_size", batch_size)
        number = as_int(epoch)
        if number is None or number < 0:
            raise InputError(f"epoch={epoch!r}: an integer ≥ 0 is wanted")
        plan = self.plan
        if size is None and isinstance(plan, Batch):
            size, drop_last, plan = plan.size, plan.drop_last, plan.child
        if size is None and self.share.of > 1:
            raise InputError("a share of a split is read in batches: give batch_size, or split after batch(n)")
        return Batches(plan, self.reading, Batching(size, drop_last, batch_format, self.share), number, state)

    def to_torch(
        self,
        batch_size: int | None = None,
        prefetch: int | None = None,
        *,
        drop_last: bool = False,
        device: str | None = None,
        epoch: int = 0,
        state: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> TorchBatches:
        """Read it as dictionaries of tensors [n, …]; columns that are no numbers stay lists.

        Args:
            batch_size: as for `iter_batches`, like the others.
            prefetch: batches made ahead by a thread, so that a learner finds the next one ready; 0: none; None: as many
                as 16 MiB hold, 2 to 32. They are not part of `options(memory)`. On the serial engine none are.
            drop_last: leave a last batch of fewer rows out.
            device: where tensors are to be, such as "cuda"; None: in memory.
            epoch: which one.
            state: where to go on.
        """
        refuse_unknown("to_torch has no option", unknown, (*_READING_OPTIONS, "prefetch", "device"), READING)
        batches = self.iter_batches(batch_size, batch_format="pyarrow", drop_last=drop_last, epoch=epoch, state=state)
        return TorchBatches(batches, prefetch, device)

    def iter_rows(self, epoch: int = 0) -> Iterator[Rows]:
        """Read it, row by row, as dictionaries."""
        for table in self.iter_batches(batch_format="pyarrow", epoch=epoch):
            yield from rows_of(table)

    def to_table(self, epoch: int = 0) -> pa.Table:
        """All of it as one `pyarrow.Table` in this process."""
        return joined(self.iter_batches(batch_format="pyarrow", epoch=epoch)).combine_chunks()

    def count(self) -> int:
        """How many rows an epoch has; reads all of it."""
        return sum(table.num_rows for table in self.iter_batches(batch_format="pyarrow"))

    def schema(self) -> pa.Schema:
        """Names and types of the columns, by reading the first rows."""
        with self.take(1).options(readers=1).iter_batches(batch_format="pyarrow") as batches:
            return next((table.schema for table in batches), pa.schema([]))

    def stats(self) -> Stats:
        """Read an epoch, and say what that took; `iter_batches(…).stats()` says it of a reading of yours."""
        batches = self.iter_batches(batch_format="pyarrow")
        for _ in batches:
            pass
        return batches.stats()

    @property
    def is_endless(self) -> bool:
        """Whether an epoch of it never comes to an end, since it repeats."""
        return is_endless(self.plan)

    def fingerprint(self) -> str:
        """16 digits that differ where rows or their order may differ: files, stages, settings, names of functions."""
        return fingerprint_of(self.plan)

    def parts(self, target: Target, rows_per_file: int | None) -> Iterator[Rows]:
        """As `Writing.parts`."""
        if self.is_endless:
            raise InputError(
                "a dataset that repeats without end cannot be written: say repeat(epochs), or leave it out"
            )
        whole = self if rows_per_file is None else self.batch(positive("rows_per_file", rows_per_file))
        for rows in whole._with(Write(whole.plan, target)).iter_batches(batch_format="rows"):
            yield from rows

    def _with(self, plan: Plan) -> Dataset:
        if self.share.of > 1:
            raise InputError("a share of a split takes no further stages: write them before split")
        return replace(self, plan=plan)

    def _apply(
        self,
        kind: Literal["map", "map_batches", "filter", "flat_map"],
        fn: Any,
        options: dict[str, Any],
        actors: int = 0,
        **shape: Any,
    ) -> Dataset:
        if not callable(fn):
            raise InputTypeError(f"{kind} takes a function, not a {type(fn).__name__} ({fn!r:.80})")
        known = ("fn_args", "fn_kwargs", "num_cpus", "num_gpus", "resources")
        refuse_unknown(f"{kind} has no option", [name for name in options if name not in known], known, OPTIONS)
        if _is_class_of_functions(fn) and kind != "map_batches":
            raise InputError(f"{kind}: {fn.__name__} is a class. Classes are for map_batches; give a function here")
        for name, wanted in (("fn_args", Sequence), ("fn_kwargs", Mapping), ("resources", Mapping)):
            if name in options and not isinstance(options[name], wanted):
                like = "a tuple" if wanted is Sequence else "a dictionary"
                raise InputTypeError(f"{kind}: {name}={options[name]!r:.80}: {like} is wanted")
        function = Function(
            kind, fn, arguments=tuple(options.get("fn_args", ())), keywords=dict(options.get("fn_kwargs", {})), **shape
        )
        resources = Resources(
            options.get("num_cpus", 0 if actors else 1),
            options.get("num_gpus", 0),
            tuple(sorted(options.get("resources", {}).items())),
        )
        apply_functions.options(**resources.options())  # raises what is wrong with them here, not where it is read
        return self._with(Apply(self.plan, function, resources, actors))


@dataclass(frozen=True)
class Groups(TeachesNames):
    """Rows in groups of equal keys."""

    names_elsewhere = GROUPS

    dataset: Dataset
    keys: tuple[str, ...]

    def aggregate(self, **columns: tuple[str, str]) -> Dataset:
        """A row for each group, in the order of the keys: the keys, and a column for each argument.

        Args:
            columns: new column = (column, function), such as ``average=("price", "mean")``. Functions: count, max,
                mean, min, std, sum, var; null does not count.
        """
        for name, told in columns.items():
            if not isinstance(told, tuple) or len(told) != 2:
                raise InputTypeError(f'aggregate: {name}={told!r}: (column, function) is wanted, such as ("x", "mean")')
            if told[1] not in FUNCTIONS:
                raise InputError(f"aggregate: {name}={told!r}: no function {told[1]!r}. {nearest(told[1], FUNCTIONS)}")
            if name in self.keys:
                raise InputError(f"aggregate: {name}={told!r}: the groups' key has that name already; choose another")
        if not columns:
            raise InputError('aggregate: nothing is asked for. Write for example aggregate(n=("x", "count"))')
        aggregates = tuple((name, column, function) for name, (column, function) in columns.items())
        _require_known(self.dataset.plan, "aggregate", [column for _, column, _ in aggregates])
        return self.dataset._with(Aggregate(self.dataset.plan, self.keys, aggregates))


def _dataset(what: str, other: Any) -> Dataset:
    if not isinstance(other, Dataset):
        raise InputTypeError(f"{what}: {other!r:.80} is a {type(other).__name__}; a Dataset is wanted")
    if other.share.of > 1:
        raise InputError(f"{what}: a share of a split takes no further stages: split what comes of it")
    return other


def _require_known(plan: Plan, stage: str, names: Sequence[str]) -> None:
    """Raise InputError for a column that is known not to be there; else whoever reads it will say so."""
    known = known_columns(plan)
    if known is not None:
        require_columns(stage, names, known)


def _is_class_of_functions(fn: Any) -> bool:
    """Whether its objects can be called; others, such as `dict`, are called themselves."""
    return inspect.isclass(fn) and any("__call__" in vars(base) for base in fn.__mro__)
