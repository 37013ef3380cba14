"""Rows that cannot be read: an error that says where they stand, and what is done about them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..runtime import InputError, ShoalError

_KEPT = 1_000
_KEPT_BYTES = 1_000


class DataError(ShoalError, InputError):
    """Something in a source cannot be read. Its message names file, place, column and reason.

    Attributes:
        path: the file, or what else was read.
        where: the place in it, such as "row group 3" or "line 17"; "": all of it.
        column: the column, if it is one that is bad.
        reason: what is wrong, and what was wanted.
    """

    def __init__(self, path: str, where: str, reason: str, column: str | None = None) -> None:
        super().__init__(path, where, reason, column)
        self.path, self.where, self.reason, self.column = path, where, reason, column

    def __str__(self) -> str:
        column = "" if self.column is None else f"column {self.column!r}"
        return f"{', '.join(filter(None, (self.path, self.where, column)))}: {self.reason}"


class BudgetError(ShoalError, InputError):
    """A plan cannot be read within its memory budget. The message has the sizes and what to change."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out."""

    path: str
    where: str
    column: str | None
    reason: str
    raw: str | None
    """The row as it stood in the file, at most 1 000 bytes of it; None where that cannot be had."""


@dataclass
class BadRows:
    """What a source tells of its bad rows: with ``skip`` they are counted and left out, else the first one raises."""

    path: str
    skip: bool = False
    count: int = 0
    rows: list[BadRow] = field(default_factory=list)
    """The first 1 000 of them; `count` counts all."""

    def add(
        self, where: str, reason: str, column: str | None = None, raw: bytes | str | None = None, n: int = 1
    ) -> None:
        """Report a bad row, or `n` of them that cannot be told apart, such as those of a damaged row group.

        Raises:
            DataError: they are not to be skipped.
        """
        if not self.skip:
            raise DataError(self.path, where, reason, column)
        self.count += n
        if len(self.rows) < _KEPT:
            text = raw[:_KEPT_BYTES].decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
            self.rows.append(BadRow(self.path, where, column, reason, text and text[:_KEPT_BYTES]))
