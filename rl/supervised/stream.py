"""Rows that are read while they are learned from: a `shoal.data.Dataset`, however large, tensors among its columns.

Its first rows say what its columns are. What is known of it is small, and goes along with a fit, so that one that goes
on reads nothing again but the window that it stopped in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import InputError, nearest
from ..models.own_modules import load_named
from .table import Feature, Table, TableSchema, categories_of, classes_of, read_table

if TYPE_CHECKING:
    from ...data import Batches, Dataset

DESCRIBED_ROWS = 10_000
IMPORT_PATH = re.compile(r"[\w.]+:\w+")
_TOGETHER = 1024


@dataclass(frozen=True)
class Description:
    """What the first rows of a stream say, as JSON holds it.

    Attributes:
        schema: the columns, and the classes that were seen.
        mean, std: of each column, over all that it holds; 0 and 1 where it holds categories.
        class_counts: rows of each class.
    """

    schema: TableSchema
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_counts: tuple[int, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Description:
        """The way back from `asdict`."""
        schema = TableSchema.from_json(document["schema"])
        return cls(schema, *(tuple(document[name]) for name in ("mean", "std", "class_counts")))


@dataclass(frozen=True)
class Stream:
    """Rows to learn from, or to be scored on, in the order of a dataset's plan.

    Attributes:
        name: of the data, for messages and the run folder.
        dataset: where they come from.
        description: what they are.
    """

    name: str
    dataset: Dataset
    description: Description

    @property
    def schema(self) -> TableSchema:
        """What its columns are."""
        return self.description.schema

    @cached_property
    def checksum(self) -> str:
        """The fingerprint of the dataset's plan."""
        return self.dataset.fingerprint()

    def facts(self) -> dict[str, Any]:
        """As `Table.facts`; how many rows there are nobody has counted."""
        return {"rows": None, "checksum": self.checksum, "description": asdict(self.description)}

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Table.moments`, with one mean and deviation for all numbers of a tensor."""
        sizes = [feature.size for feature in self.schema.features]
        return np.repeat(self.description.mean, sizes), np.repeat(self.description.std, sizes)

    def class_counts(self) -> np.ndarray:
        """As `Table.class_counts`, of the rows that described it."""
        return np.asarray(self.description.class_counts)

    def check_ends(self) -> None:
        """Raise InputError if an epoch has no end."""
        if self.dataset.is_endless:
            raise InputError(
                f"{self.name} repeats without end, so it cannot be held out as a whole: leave repeat() out"
            )

    def batches(self, size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features and labels of one epoch, `size` rows at a time (1,024). InputError if it has no end."""
        self.check_ends()
        with self.dataset.iter_batches(size or _TOGETHER) as batches:
            for number, columns in enumerate(batches):
                yield self.arrays(columns, number)

    def endless(self, size: int, state: Mapping[str, Any] | None) -> Batches:
        """Minibatches of epoch after epoch, from where a state says."""
        return self.dataset.repeat().iter_batches(size, state=state)

    def arrays(self, columns: Mapping[str, Any], number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels of a batch; its number is for messages."""
        where = f"batch {number} of {self.name}"
        return self.schema.encode(columns, where), self.schema.labels(columns, where)


def is_import_path(given: Any) -> bool:
    """Whether that names a function of the user's, "package.module:function", and no file."""
    return isinstance(given, str) and IMPORT_PATH.fullmatch(given) is not None and not Path(given).exists()


def where_of(given: Any) -> str | None:
    """How a later process finds the data; None: not at all."""
    if isinstance(given, Stream):
        return given.name if is_import_path(given.name) else None
    if is_import_path(given):
        return str(given)
    return str(Path(given).resolve()) if isinstance(given, str | Path) else None


def opened(given: Any) -> Any:
    """The dataset that the function of an import path returns; anything else as it is."""
    if not is_import_path(given):
        return given
    made = load_named("dataset", given)
    found = made() if callable(made) else made
    if not hasattr(found, "iter_batches"):
        raise InputError(f"dataset is {given!r}, which gives a {type(found).__name__}, but must give a Dataset")
    return found


def read_rows(
    given: Any,
    label: str,
    task: str = "auto",
    schema: TableSchema | None = None,
    *,
    described_rows: int = DESCRIBED_ROWS,
    description: Description | None = None,
) -> Table | Stream:
    """A `Stream` of a Dataset, or of the import path of a function that returns one; of all else a table, in memory.

    Args:
        given, label, task, schema: as for `read_table`.
        described_rows: how many rows are read to see what the columns are, if neither schema nor description says it.
        description: of an earlier reading.

    Raises:
        InputError: a column is not there, or is of a kind that no network takes.
    """
    found = opened(given)
    if not hasattr(found, "iter_batches"):
        return read_table(found, label, task, schema)
    name = given if isinstance(given, str) else "dataset"
    if description is None and schema is not None:
        unknown = len(schema.features)
        description = Description(schema, (0.0,) * unknown, (1.0,) * unknown, ())
    return Stream(name, found, description or describe(found, label, task, described_rows, name))


def describe(dataset: Dataset, label: str, task: str, rows: int, name: str) -> Description:
    """Read the first rows of a dataset to see what its columns are; tensors are not kept."""
    order: dict[str, None] = {}
    single: dict[str, list[np.ndarray]] = {}
    tensors: dict[str, _Moments] = {}
    with dataset.take(rows).iter_batches(_TOGETHER) as batches:
        for columns in batches:
            order |= dict.fromkeys(columns)
            for column, values in columns.items():
                if values.ndim > 1 and values.dtype.kind in "biuf":
                    tensors.setdefault(column, _Moments(values.shape[1:])).add(values, column, name)
                else:
                    single.setdefault(column, []).append(_checked(values, column, name))
    if not single and not tensors:
        raise InputError(f"{name} has no rows")
    if label not in single:
        shaped = f" of single values: it holds tensors of shape {tensors[label].shape}" if label in tensors else ""
        names = [column for column in (*single, *tensors) if column != label]
        raise InputError(f"{name} has no column {label!r}{shaped}. {nearest(label, names)}")
    known = {column: np.concatenate(parts) for column, parts in single.items()}
    labels = known.pop(label)
    features = [
        Feature(column, None, tensors[column].shape)
        if column in tensors
        else Feature(column, categories_of(known[column]))
        for column in order
        if column != label
    ]
    if not features:
        raise InputError(f"{name} has the column {label!r} alone: there is nothing to predict it from")
    for column, values in known.items():
        if values.dtype.kind in "biuf":
            tensors[column] = _Moments(())
            tensors[column].add(values, column, name)
    schema = TableSchema(tuple(features), label, classes_of(labels, task, label))
    moments = [tensors[feature.name].result() if feature.name in tensors else (0.0, 1.0) for feature in features]
    codes = schema.labels({label: labels}, name)
    counts = () if schema.classes is None else np.bincount(codes.astype(int), minlength=len(schema.classes)).tolist()
    return Description(schema, tuple(m[0] for m in moments), tuple(m[1] for m in moments), tuple(counts))


class _Moments:
    """Mean and deviation of a column that comes in parts (Chan et al., 1979): sums of squares cancel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray, column: str, name: str) -> None:
        if values.shape[1:] != self.shape:
            raise InputError(
                f"column {column!r} of {name} has rows of shape {values.shape[1:]} and of {self.shape}: want one shape"
            )
        known = values[np.isfinite(values)].astype(float)
        if not known.size:
            return
        mean, count = float(known.mean()), self._count + known.size
        apart = mean - self._mean
        self._squares += float(((known - mean) ** 2).sum()) + apart**2 * self._count * known.size / count
        self._mean += apart * known.size / count
        self._count = count

    def result(self) -> tuple[float, float]:
        deviation = (self._squares / max(self._count, 1)) ** 0.5
        return self._mean, deviation if deviation > 0 else 1.0


def _checked(values: np.ndarray, column: str, name: str) -> np.ndarray:
    odd = next((v for v in values.tolist() if not isinstance(v, str | bool | int | float | None)), None)
    if values.ndim > 1 or odd is not None:
        raise InputError(
            f"column {column!r} of {name} holds values such as {odd!r:.80}: want numbers, texts, or tensors of one "
            "shape and numeric dtype. Make arrays [n, …] of it by map_batches, or leave it out"
        )
    return values
