"""Pictures in files, one a row, and what their folders say of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...runtime import InputError
from ..blocks import column_of
from ..errors import BadRows
from .image_format import SUFFIXES, ImageForm
from .source import Piece

FILE_SUFFIXES = tuple(f".{name}" for suffix in sorted(SUFFIXES) for name in (suffix, suffix.upper()))
_PIECE = 2 << 20
"""Bytes of decoded pictures that one task reads."""


@dataclass(frozen=True)
class ImageSource:
    """Pictures in the order of the files: `image` [H, W, …] uint8, all of one shape.

    Args:
        files: their paths.
        form: what they are brought into.
        shape: of the decoded pictures; another one is a bad row.
        classes: with them, a column `label` int64: the index in them of the name of the folder that a file lies in.
        include_paths: also a column `path`.
    """

    files: tuple[str, ...]
    form: ImageForm
    shape: tuple[int, ...]
    classes: tuple[str, ...] | None = None
    include_paths: bool = False

    def pieces(self) -> tuple[Piece, ...]:
        """So many files that the pictures take 2 MB; `place` is the range of their indices."""
        size = math.prod(self.shape)
        count = max(1, _PIECE // size)
        starts = range(0, len(self.files), count)
        ranges = [(start, min(start + count, len(self.files))) for start in starts]
        return tuple(
            Piece(
                self.files[start],
                (start, stop),
                f"and the {stop - start - 1} files after it",
                stop - start,
                size * (stop - start),
            )
            for start, stop in ranges
        )

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """As `Source.read`."""
        files = self.files[slice(*piece.place)]
        pictures = np.empty((len(files), *self.shape), np.uint8)
        good: list[str] = []
        for path in files:
            try:
                with open(path, "rb") as file:
                    decoded = self.form.decode(file.read())
            except (OSError, ValueError) as error:
                bad.add(path, str(error))
                continue
            if decoded.shape != self.shape:
                wanted = (
                    f"it is {list(decoded.shape)}, the first one {list(self.shape)}; give all one size=(height, width)"
                )
                bad.add(path, wanted)
                continue
            pictures[len(good)] = decoded
            good.append(path)
        yield self._table(good, pictures[: len(good)])

    def _table(self, paths: list[str], pictures: np.ndarray) -> pa.Table:
        columns = {"image": column_of(pictures)}
        if self.classes is not None:
            index = {name: number for number, name in enumerate(self.classes)}
            columns["label"] = pa.array([index[Path(path).parent.name] for path in paths], pa.int64())
        if self.include_paths:
            columns["path"] = pa.array(paths, pa.string())
        return pa.table(columns)


def first_shape(files: tuple[str, ...], form: ImageForm) -> tuple[int, ...]:
    """The shape of the first picture of `files` that can be read. Raises InputError if none can."""
    reason = ""
    for path in files:
        try:
            return form.shape(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            reason = reason or f"{path}: {error}"
    raise InputError(f"none of {len(files)} files is a picture that can be read; {reason}")
