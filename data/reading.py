"""Datasets from files and values: the functions that a plan begins with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from ..runtime import InputError, InputTypeError
from .arguments import positive
from .dataset import Dataset
from .plan import Read
from .sources import Source
from .sources.arrays import NumpySource
from .sources.files import Paths, find_files
from .sources.parquet import ParquetSource
from .sources.values import IndexedSource, read_now


def from_source(source: Source, *, on_error: str = "raise", bad_rows: str | os.PathLike[str] | None = None) -> Dataset:
    """A dataset of any `Source`, also one of your own.

    Args:
        source: where rows come from.
        on_error: "raise" a DataError for a row that cannot be read, or for which `map`, `filter` or `flat_map` raise;
            or "skip" it: such rows are left out and counted in `stats()`. `map_batches` always raises.
        bad_rows: the file that takes rows which are skipped, each as a line of JSON with path, place, column, reason
            and the row itself. What is there stays.
    """
    if on_error not in ("raise", "skip"):
        raise InputError(f'on_error={on_error!r}: "raise" or "skip" is wanted')
    if bad_rows is not None and on_error != "skip":
        raise InputError('bad_rows takes what on_error="skip" leaves out; give that, too')
    return Dataset(Read(source, on_error == "skip", None if bad_rows is None else os.fspath(bad_rows)))


def read_parquet(
    paths: Paths,
    *,
    columns: Sequence[str] | None = None,
    on_error: str = "raise",
    bad_rows: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Parquet files; a row group is what is read at once.

    Args:
        paths: a file, a folder, a pattern, or a list of them.
        columns: which to read; None: all.
        on_error: as `from_source`, like `bad_rows`.
        bad_rows: as there.
    """
    source = ParquetSource(find_files(paths, (".parquet", ".pq")), None if columns is None else tuple(columns))
    return from_source(source, on_error=on_error, bad_rows=bad_rows)


def read_numpy(
    paths: Paths, *, column: str = "data", on_error: str = "raise", bad_rows: str | os.PathLike[str] | None = None
) -> Dataset:
    """numpy's .npy files, mapped, rows along the first axis; and .npz files, a column for each array.

    Args:
        paths: a file, a folder, a pattern, or a list of them.
        column: what the rows of .npy files are called.
        on_error: as `from_source`, like `bad_rows`; a file that is damaged counts as one row.
        bad_rows: as there.
    """
    return from_source(NumpySource(find_files(paths, (".npy", ".npz")), column), on_error=on_error, bad_rows=bad_rows)


def from_items(items: Iterable[Any], *, rows_per_piece: int = 1_000) -> Dataset:
    """Rows that are in memory: dictionaries, or other values, which become the column "item".

    Args:
        items: any iterable; it is read to its end now, and made a table; what pyarrow raises of a row passes.
        rows_per_piece: rows that a task gets.
    """
    rows = list(items)
    return from_source(read_now(IndexedSource(rows, positive("rows_per_piece", rows_per_piece), f"{len(rows)} items")))


def from_torch(
    dataset: Any,
    *,
    columns: Sequence[str] = (),
    rows_per_piece: int = 256,
    on_error: str = "raise",
    bad_rows: str | os.PathLike[str] | None = None,
) -> Dataset:
    """A map-style torch dataset, or whatever else has a length and gives row number i as ``dataset[i]``.

    It travels to the workers, which read it, so it does what a DataLoader's workers would.

    Args:
        dataset: a row may be a dictionary, a tuple or a single value (array, tensor, number).
        columns: what the parts of a tuple are called, such as ("image", "label"); default "0", "1", ….
        rows_per_piece: rows that a task reads.
        on_error: as `from_source`, like `bad_rows`.
        bad_rows: as there.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InputTypeError(
            f"from_torch takes a map-style dataset, with a length and an index, not a {type(dataset).__name__}. "
            "Of an iterable make rows: from_items(list(…))"
        )
    step = positive("rows_per_piece", rows_per_piece)
    source = IndexedSource(dataset, step, type(dataset).__name__, tuple(columns))
    return from_source(source, on_error=on_error, bad_rows=bad_rows)
