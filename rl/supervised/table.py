"""A table as models take it: features as float32, what is missing as NaN, categories as codes; and a label.

What a column is, its `TableSchema` remembers, so that rows are read at serving as they were in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...envs import stream
from ...runtime import InputError, nearest

MOST_CLASSES = 100
"""A label of whole numbers with more different values than this is a quantity, not a class."""


@dataclass(frozen=True)
class Feature:
    """A column: its name and, if it holds categories, which, sorted; the code of one is its place. `shape` is that of a
    value, () of a single one; only streams have others."""

    name: str
    categories: tuple[Any, ...] | None = None
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in a value."""
        return int(np.prod(self.shape, dtype=int))


@dataclass(frozen=True)
class TableSchema:
    """What the columns of a table are, and which is to be predicted."""

    features: tuple[Feature, ...]
    label: str
    classes: tuple[Any, ...] | None
    """The label's values, sorted; None: it is a quantity."""

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TableSchema:
        """The way back."""
        features = [Feature(f["name"], _tuple(f["categories"]), tuple(f["shape"])) for f in document["features"]]
        return cls(tuple(features), document["label"], _tuple(document["classes"]))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of the features of a row: that of the one column, if it is one of tensors, else (F,), with tensors flat."""
        if len(self.features) == 1 and self.features[0].shape:
            return self.features[0].shape
        return (sum(feature.size for feature in self.features),)

    def encode(self, columns: Mapping[str, Any], where: str) -> np.ndarray:
        """Features [rows, *row_shape] float32 of columns by name; a category that training did not know is missing.

        Raises:
            InputError: a column is not there, or is of another kind or shape.
        """
        found = [
            _encode(feature, _column(columns, feature.name, where, feature.shape), where) for feature in self.features
        ]
        if len(found) == 1:
            return found[0].reshape(-1, *self.row_shape)
        return np.concatenate([values.reshape(len(values), -1) for values in found], axis=1)

    def labels(self, columns: Mapping[str, Any], where: str) -> np.ndarray:
        """The label [rows]: codes of classes, or quantities; float32.

        Raises:
            InputError: a label is missing, or is a class that training did not know.
        """
        encoded = _encode(Feature(self.label, self.classes), _column(columns, self.label, where), where)
        if bad := np.flatnonzero(np.isnan(encoded)).tolist():
            of = "" if self.classes is None else f" or none of the classes {list(self.classes)[:10]}"
            raise InputError(f"{where}: row {bad[0]} has a label {self.label!r} that is missing{of}. Filter such rows")
        return encoded


@dataclass(frozen=True)
class Table:
    """Rows to learn from or to be scored on.

    Attributes:
        name: of the data, for messages and the run folder.
        features: [rows, F] float32, NaN where nothing is.
        labels: [rows] float32.
        schema: what they are.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    schema: TableSchema

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of features and labels."""
        return hashlib.sha256(self.features.tobytes() + self.labels.tobytes()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {"rows": len(self), "checksum": self.checksum, "description": None}

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each feature, of what is not missing; 1 for a deviation of 0."""
        known = np.isfinite(self.features)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, self.features, 0).sum(axis=0, dtype=float) / count
        deviation = np.sqrt(np.where(known, (self.features - mean) ** 2, 0).sum(axis=0) / count)
        return mean, np.where(deviation > 0, deviation, 1.0)

    def class_counts(self) -> np.ndarray:
        """Rows of each class."""
        return np.bincount(self.labels.astype(int), minlength=len(self.schema.classes or ()))

    def batches(self, size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features and labels in order, `size` rows at a time; None: all at once."""
        step = size or max(len(self), 1)
        for start in range(0, len(self), step):
            yield self.features[start : start + step], self.labels[start : start + step]

    def rows(self, index: Sequence[int]) -> Table:
        """Some of its rows."""
        return Table(self.name, self.features[np.asarray(index)], self.labels[np.asarray(index)], self.schema)


def read_table(given: Any, label: str, task: str = "auto", schema: TableSchema | None = None) -> Table:
    """Read a table.

    Args:
        given: a Parquet, CSV or JSONL file (or folder of Parquet), a `shoal.data.Dataset`, a pyarrow table, columns by
            name, or a pair of arrays: features [rows, F] and labels [rows].
        label: the column to predict; of a pair, what it shall be called.
        task: "classification", "regression", or "auto": whole numbers (at most 100 of them), truth values and texts
            are classes.
        schema: of an earlier table, that this one is to be read as.

    Raises:
        InputError: no such file, no such column, or one of a kind that no model takes.
    """
    name, columns = _columns(given, label)
    wanted = schema or _schema(columns, label, task, name)
    return Table(name, wanted.encode(columns, name), wanted.labels(columns, name), wanted)


def split_rows(table: Table, held_out: float, seed: int) -> tuple[Table, Table | None]:
    """The rows to learn from, and those that are held out, in the table's order; which, the seed says."""
    count = round(len(table) * held_out)
    if len(table) - count < 1:
        raise InputError(f"{table.name} has {len(table)} rows: too few to hold {held_out:g} of them out")
    if not count:
        return table, None
    chosen = stream(seed, "held out").permutation(len(table))
    rest, out = sorted(chosen[count:].tolist()), sorted(chosen[:count].tolist())
    return table.rows(rest), table.rows(out)


def _columns(given: Any, label: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(given, str | Path):
        return Path(given).name, _arrow_columns(_read_file(Path(given)))
    if hasattr(given, "to_table"):  # a Dataset; to ask for its class would load pyarrow
        return "dataset", _arrow_columns(given.to_table())
    if isinstance(given, tuple) and len(given) == 2:
        features = np.asarray(given[0])
        if features.ndim != 2 or len(features) != len(given[1]):
            raise InputError(
                f"features have the shape {features.shape}, labels {np.shape(given[1])}: want [N, F] and [N]"
            )
        return "arrays", {**{f"f{i}": features[:, i] for i in range(features.shape[1])}, label: np.asarray(given[1])}
    if isinstance(given, Mapping):
        return "columns", given
    if hasattr(given, "column_names"):
        return "table", _arrow_columns(given)
    raise InputError(f"a table is a file, a Dataset, columns or (features, labels), not a {type(given).__name__}")


def _read_file(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"dataset '{path}' does not exist (looked in {Path.cwd()})")
    if find_spec("pyarrow") is None:
        raise InputError(f"to read '{path}' needs the package 'pyarrow': pip install \"shoal[data]\"")
    from pyarrow import ArrowInvalid, csv, json, parquet

    readers: dict[str, Callable[[Path], Any]] = {
        ".parquet": parquet.read_table,
        ".csv": csv.read_csv,
        ".jsonl": json.read_json,
    }
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix not in readers:
        raise InputError(f"dataset '{path}' ends in {suffix!r}, but must be one of {', '.join(readers)}")
    try:
        return readers[suffix](path)
    except ArrowInvalid as error:
        raise InputError(f"dataset '{path}' cannot be read: {error}") from error


def _arrow_columns(table: Any) -> dict[str, Any]:
    return {name: _arrow_column(table[name]) for name in table.column_names}


def _arrow_column(column: Any) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType) and len(column):
        return np.asarray(column.combine_chunks().to_numpy_ndarray())
    if pa.types.is_integer(kind) and not column.null_count:
        return np.asarray(column.to_numpy())
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    return np.asarray(column.to_pylist(), object)


def _schema(columns: Mapping[str, Any], label: str, task: str, where: str) -> TableSchema:
    found = _column(columns, label, where)
    names = [name for name in columns if name != label]
    if not names:
        raise InputError(f"{where} has the column {label!r} alone: there is nothing to predict it from")
    features = tuple(Feature(name, categories_of(_column(columns, name, where))) for name in names)
    return TableSchema(features, label, classes_of(found, task, label))


def classes_of(values: np.ndarray, task: str, label: str) -> tuple[Any, ...] | None:
    """The classes that a label has, as the values say and `task` wants; None: it is a quantity."""
    if task not in ("auto", "classification", "regression"):
        tasks = ("auto", "classification", "regression")
        raise InputError(f"task is {task!r}, but must be one of {', '.join(tasks)}. {nearest(task, tasks)}")
    named = values.dtype.kind in "OUSb"
    if task == "regression" or (task == "auto" and not named and values.dtype.kind not in "iu"):
        if named:
            raise InputError(f"task is 'regression', but the label {label!r} holds no numbers")
        return None
    classes = _sorted(values) if named else tuple(np.unique(values[~np.isnan(values.astype(float))]).tolist())
    return None if task == "auto" and not named and len(classes) > MOST_CLASSES else classes


def categories_of(values: np.ndarray) -> tuple[Any, ...] | None:
    """The categories of a column; None: it holds numbers."""
    return _sorted(values) if values.dtype.kind in "OUSb" else None


def _sorted(values: np.ndarray) -> tuple[Any, ...]:
    there = {value for value in values.tolist() if value is not None and value == value}  # noqa: PLR0124 — NaN is not
    return tuple(sorted(there, key=lambda value: (type(value).__name__, value)))


def _column(columns: Mapping[str, Any], name: str, where: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    if name not in columns:
        raise InputError(f"{where} has no column {name!r}. {nearest(name, list(columns))}")
    values = np.asarray(columns[name])
    if values.shape[1:] != shape or values.dtype.kind not in ("biuf" if shape else "biufOUS"):
        wanted = f"numbers of shape {shape} in each row" if shape else "numbers or texts (tensors: stream a Dataset)"
        raise InputError(f"column {name!r} of {where} is of {values.dtype} and shape {values.shape}: want {wanted}")
    return values


def _encode(feature: Feature, values: np.ndarray, where: str) -> np.ndarray:
    if feature.categories is None:
        if values.dtype.kind not in "biuf":
            raise InputError(f"column {feature.name!r} of {where} holds {values.dtype}, but held numbers in training")
        return values.astype(np.float32)
    if values.dtype.kind in "iuf" and not np.isnan(values.astype(float)).all() and _are_texts(feature.categories):
        raise InputError(f"column {feature.name!r} of {where} holds {values.dtype}, but held texts in training")
    codes = {category: float(code) for code, category in enumerate(feature.categories)}
    return np.asarray([codes.get(value, np.nan) for value in values.tolist()], np.float32)


def _are_texts(categories: Sequence[Any]) -> bool:
    return bool(categories) and all(isinstance(category, str) for category in categories)


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
