"""Tar files in WebDataset's layout, decoded by the names of their columns."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ...runtime import InputError
from ..errors import BadRows
from .cutting import DAMAGED, cut, groups, open_file, open_piece
from .image_format import SUFFIXES as IMAGES
from .image_format import ImageForm
from .samples import SAMPLED, MisfitError, Sample, schema_of, table_of_samples
from .source import Piece
from .tar_format import KEY, TarSample, read_samples, scan_samples

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Decoding:
    """How the files of samples become values, by the last part of their column's name.

    Text (txt, text) → str; whole numbers (cls, cls2, index, count) → int; json → what it says; npy → array; pictures
    → uint8 arrays; all else, and everything without `by_name`, stays bytes. Nothing is unpickled.
    """

    by_name: bool = True
    images: ImageForm = field(default_factory=ImageForm)

    def values(self, sample: TarSample) -> dict[str, Any]:
        """A sample's row. Raises MisfitError, which names the column, for what cannot be decoded."""
        row: dict[str, Any] = {KEY: sample.key}
        for name, content in sample.files.items():
            try:
                row[name] = self._value(name.rpartition(".")[2], content) if self.by_name else content
            except (ValueError, EOFError) as error:
                raise MisfitError(name, str(error)) from error
        return row

    def _value(self, kind: str, content: bytes) -> Any:
        if kind in ("txt", "text"):
            return content.decode()
        if kind in ("cls", "cls2", "index", "count"):
            return int(content)
        if kind == "json":
            return json.loads(content)
        if kind == "npy":
            return np.load(io.BytesIO(content), allow_pickle=False)
        return self.images.decode(content) if kind in IMAGES else content


@dataclass(frozen=True)
class WebDatasetSource:
    """Samples in the order of the files.

    Args:
        files: paths of tars.
        schema: the columns, `__key__` among them; others in a sample make it a bad row, what it lacks is null.
        decoding: how files become values.
    """

    files: tuple[str, ...]
    schema: pa.Schema
    decoding: Decoding

    def pieces(self) -> tuple[Piece, ...]:
        """A tar each; large ones that are not compressed in several."""
        return tuple(piece for file in self.files for piece in cut(file, scan_samples))

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """As `Source.read`; what comes after a damaged header counts as one bad row."""
        for samples in groups(self._samples(piece, bad), lambda sample: _size(sample.values)):
            table, misfits = table_of_samples(samples, self.schema)
            for sample, error in misfits:
                bad.add(sample.where, error.reason, error.column)
            yield table

    def _samples(self, piece: Piece, bad: BadRows) -> Iterator[Sample]:
        with open_piece(piece, bad) as file:
            for sample in read_samples(file, stop=piece.place[2]):
                where = f"sample {sample.key!r} at byte {sample.offset}"
                try:
                    yield Sample(where, self.decoding.values(sample))
                except MisfitError as error:
                    bad.add(where, error.reason, error.column, sample.files.get(error.column))


def _size(row: Mapping[str, Any]) -> int:
    return sum(_value_size(value) for value in row.values())


def _value_size(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(
        value if isinstance(value, bytes) else str(value)
    )  # as text, bytes take half as long as a JPEG to decode


def infer_schema(files: Sequence[str], decoding: Decoding) -> pa.Schema:
    """The columns of the first 100 samples.

    Raises:
        InputError: there is no sample that can be decoded, or a column's values have no common type.
    """
    rows = list(itertools.islice(_first_rows(files, decoding), SAMPLED))
    if not rows:
        raise InputError(f"{files[0]} holds no sample of WebDataset's layout (KEY.txt, KEY.png, …) that can be decoded")
    try:
        return schema_of(rows)
    except MisfitError as error:
        hint = "; give pictures one form with size=(height, width)" if error.column.rpartition(".")[2] in IMAGES else ""
        raise InputError(f"{files[0]}, column {error.column!r}: {error.reason}{hint}, or say schema=") from error


def _first_rows(files: Sequence[str], decoding: Decoding) -> Iterator[dict[str, Any]]:
    for path in files:
        try:
            with open_file(path) as file:
                for sample in read_samples(file):
                    try:
                        yield decoding.values(sample)
                    except MisfitError:
                        continue  # who reads it will say so
        except DAMAGED:
            continue
