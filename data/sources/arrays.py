"""numpy's files: .npy mapped, in ranges of rows; .npz as a whole, a column for each of its arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...runtime import InputError
from ..blocks import column_of
from ..errors import BadRows
from .source import Piece

RANGE = 16 << 20
"""About so many bytes of a .npy file are a piece."""
_DAMAGED = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class NumpySource:
    """Arrays along their first axis, in the order of the files. Pickled objects in them are never loaded.

    Args:
        files: their paths.
        column: what the rows of .npy files are called.
    """

    files: tuple[str, ...]
    column: str = "data"

    def pieces(self) -> tuple[Piece, ...]:
        """Ranges of rows of each .npy file, by its header; whole .npz files."""
        return tuple(piece for file in self.files for piece in self._ranges(file))

    def _ranges(self, path: str) -> Iterator[Piece]:
        if path.endswith(".npz"):
            yield Piece(path, bytes=_bytes_of(path))
            return
        array = _map(path)
        row_bytes = max(1, array.nbytes // max(1, len(array)))
        step = max(1, RANGE // row_bytes)
        for start in range(0, len(array), step):
            stop = min(start + step, len(array))
            yield Piece(path, (start, stop), f"rows {start} to {stop - 1}", stop - start, (stop - start) * row_bytes)

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """The rows as one table; a damaged file is one error."""
        try:
            if piece.place:
                start, stop = piece.place
                yield pa.table({self.column: column_of(np.asarray(_map(piece.path)[start:stop]))})
            else:
                with np.load(piece.path) as arrays:
                    columns = {name: arrays[name] for name in arrays.files}
                yield _side_by_side(columns)
        except _DAMAGED as error:
            bad.add(piece.where, f"it cannot be read: {error}", n=piece.rows or 1)


def _map(path: str) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is no .npy file that can be read: {error}") from error
    if array.ndim == 0:
        raise InputError(f"{path} holds a single value, and no rows")
    return array


def _bytes_of(path: str) -> int:
    try:
        with zipfile.ZipFile(path) as file:
            return sum(entry.file_size for entry in file.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz file that can be read: {error}") from error


def _side_by_side(columns: dict[str, Any]) -> pa.Table:
    lengths = {name: len(np.atleast_1d(values)) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"its arrays have different numbers of rows: {lengths}")
    return pa.table({name: column_of(np.atleast_1d(values)) for name, values in columns.items()})
