"""What datasets have to write themselves."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime import InputError
from ..elsewhere import require_local
from . import formats
from .target import Target, new_folder


@dataclass(frozen=True)
class Part:
    """A file that has been written."""

    file: str
    rows: int
    bytes: int


class Writing(ABC):
    """The `write_…` methods of `Dataset`. Each writes one epoch into a folder, as files part-00000.…, part-00001.… .

    A part holds what was read at once (a row group, a file, a window), or `rows_per_file` rows. Which rows are in which
    part depends on the plan alone, so a run that was killed and begun again gives the same files. The folder appears
    when all are written; one that is there is replaced with `overwrite=True`, else it is an InputError.
    """

    @abstractmethod
    def parts(self, target: Target, rows_per_file: int | None) -> Iterator[dict[str, Any]]:
        """Write to a target, and yield what has been written, in order; `Dataset` says how."""

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        compression: str = "snappy",
        row_group_size: int | None = None,
        rows_per_file: int | None = None,
        overwrite: bool = False,
    ) -> list[Part]:
        """Parquet files; tensors keep their shapes, for pyarrow's readers and ours.

        Args:
            path: the folder.
            compression: "snappy", "zstd", "gzip", "lz4" or "none".
            row_group_size: rows of a row group; None: a group a file.
            rows_per_file: as above, like `overwrite`.
            overwrite: as above.
        """
        return self._write(path, formats.Parquet(compression, row_group_size), rows_per_file, overwrite)

    def write_arrow(
        self, path: str | os.PathLike[str], *, rows_per_file: int | None = None, overwrite: bool = False
    ) -> list[Part]:
        """Arrow IPC files, larger than Parquet's and read without decoding; tensors keep their shapes."""
        return self._write(path, formats.Arrow(), rows_per_file, overwrite)

    def write_json(
        self, path: str | os.PathLike[str], *, rows_per_file: int | None = None, overwrite: bool = False
    ) -> list[Part]:
        """JSON Lines; tensors as nested lists, dates in ISO 8601. NaN is an InputError, since JSON has none."""
        return self._write(path, formats.Json(), rows_per_file, overwrite)

    def write_csv(
        self, path: str | os.PathLike[str], *, rows_per_file: int | None = None, overwrite: bool = False
    ) -> list[Part]:
        """CSV with the names of the columns in the first line; lists and tensors are an InputError."""
        return self._write(path, formats.Csv(), rows_per_file, overwrite)

    def write_numpy(
        self,
        path: str | os.PathLike[str],
        *,
        column: str | None = None,
        rows_per_file: int | None = None,
        overwrite: bool = False,
    ) -> list[Part]:
        """One `column` as .npy, or all as .npz; columns must be numbers, texts or tensors."""
        form = formats.Npz() if column is None else formats.Numpy(column)
        return self._write(path, form, rows_per_file, overwrite)

    def write_webdataset(
        self, path: str | os.PathLike[str], *, rows_per_file: int | None = None, overwrite: bool = False
    ) -> list[Part]:
        """Tar files in WebDataset's layout: samples named by the column `__key__`, a file for each other column, named
        by it. Tensors become pictures where the name is a picture's ending, else .npy's bytes; null is left out."""
        return self._write(path, formats.WebDataset(), rows_per_file, overwrite)

    def write_tfrecords(
        self, path: str | os.PathLike[str], *, rows_per_file: int | None = None, overwrite: bool = False
    ) -> list[Part]:
        """TFRecord files of tf.train.Example; tensors as flat lists."""
        return self._write(path, formats.TFRecord(), rows_per_file, overwrite)

    def _write(
        self, path: str | os.PathLike[str], form: formats.Format, rows_per_file: int | None, overwrite: bool
    ) -> list[Part]:
        require_local(path)
        folder = Path(os.path.abspath(path))
        with new_folder(folder, overwrite=overwrite) as partial:
            written = [Part(**part) for part in self.parts(Target(str(partial), form), rows_per_file)]
            if not written:
                raise InputError(f"the dataset has no rows: nothing is written to {str(folder)!r}")
        return written
