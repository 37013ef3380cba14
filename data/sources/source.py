"""What a source is: pieces in an order, each read as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from ..errors import BadRows


@dataclass(frozen=True)
class Piece:
    """The unit in which a source is read: what one task reads, and what a shuffled epoch permutes."""

    path: str
    """The file, or a name for what is no file; errors begin with it."""
    place: tuple[Any, ...] = ()
    """Which part of it, as the source itself understands it, such as a row group's number or a range of bytes."""
    where: str = ""
    """The same for people, such as "row group 3"; "" for a whole file."""
    rows: int | None = None
    """How many rows it holds; None if that is not known without reading it."""
    bytes: int | None = None
    """How many bytes its tables take in memory, as near as is known without reading it; None if it is not."""

    def __str__(self) -> str:
        return f"{self.path}, {self.where}" if self.where else self.path


class Source(Protocol):
    """Where rows come from. A value: it can be pickled, and gives the same rows whenever and wherever it is read."""

    def pieces(self) -> tuple[Piece, ...]:
        """All pieces, in the source's order. Deterministic and cheap: it looks at names, sizes and footers only.

        Raises:
            InputError: there is nothing to read; names what was looked for.
        """

    def read(self, piece: Piece, bad: BadRows) -> Iterator[pa.Table]:
        """Yield the rows of a piece in their order, in tables of one schema; runs in a worker.

        Bad rows are told to ``bad.add(where, reason, column, raw)``, which raises a `DataError` or returns, as the user
        has chosen; a source then leaves the row out and goes on. A piece that cannot be read at all is told in the same
        way. Nothing is yielded for a piece without rows, or an empty table if the schema is known.
        """
