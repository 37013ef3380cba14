"""A dataset's pieces, some whole episodes each: read once for all learners, or by the only one for itself.

Whoever asks says where it is. So a reader keeps nothing that must not be lost: one that was killed, or is asked for
what it has given long ago, opens the dataset there again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import ActorHandle, ObjectRef, exceptions, get, put

if TYPE_CHECKING:
    from ... import data

Place = dict[str, Any]
"""State of a reading; `batch` is the number of the piece that is next."""
_KEPT = 64 << 20
"""Bytes of pieces that are kept for learners that have not taken them yet: all fill their blocks at the same time."""


@dataclass(frozen=True)
class Piece:
    """Rows of some whole episodes.

    Attributes:
        place: where they begin.
        following: where the next piece begins.
        columns: the rows by column, or a reference to them.
    """

    place: Place
    following: Place
    columns: Mapping[str, np.ndarray] | ObjectRef


class PieceReader:
    """Actor class for learners that read the same pieces (`shares`), or an object of the only learner's."""

    def __init__(self, shares: bool = False) -> None:
        self._shares = shares
        self._batches: data.Batches | None = None
        self._kept: dict[int, tuple[Piece | None, int]] = {}  # by number, with its bytes

    def take(self, rows: data.Dataset, place: Place | None) -> Piece | None:
        """The piece of `rows` at a place, None is the beginning; None behind the last one. Raises what reading does."""
        number = 0 if place is None else int(place["batch"])
        if number in self._kept:
            return self._kept[number][0]
        if self._batches is None or self._batches.state()["batch"] != number:
            self.close()
            self._batches = rows.iter_batches(state=place)
        begin = self._batches.state()
        try:
            columns = next(self._batches, None)
        except Exception:
            self.close()  # what was read is lost: who asks again says where
            raise
        if not self._shares:
            return None if columns is None else Piece(begin, self._batches.state(), columns)
        piece = None if columns is None else Piece(begin, self._batches.state(), put(columns))
        self._kept[number] = piece, sum(column.nbytes for column in (columns or {}).values())
        while sum(size for _, size in self._kept.values()) > _KEPT and len(self._kept) > 1:
            del self._kept[next(iter(self._kept))]
        return piece

    def close(self) -> None:
        """Drop what was read ahead."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None


def piece_at(
    reader: PieceReader | ActorHandle, rows: data.Dataset, place: Place | None
) -> tuple[Piece, Mapping[str, np.ndarray]] | None:
    """As `PieceReader.take`, of an object or of an actor: the piece, and its rows by column, not to be written to."""
    if isinstance(reader, PieceReader):
        return _with_rows(reader.take(rows, place))
    try:
        return _with_rows(get(reader.take.remote(rows, place)))
    except exceptions.ObjectLostError:  # the reader has died since it answered: the one in its place reads it again
        return _with_rows(get(reader.take.remote(rows, place)))


def _with_rows(piece: Piece | None) -> tuple[Piece, Mapping[str, np.ndarray]] | None:
    if piece is None:
        return None
    return piece, get(piece.columns) if isinstance(piece.columns, ObjectRef) else piece.columns
