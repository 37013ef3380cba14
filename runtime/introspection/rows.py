"""A list with the total count, for truncated listings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class Rows(list[T]):
    """Rows of a listing.

    Attributes:
        total: how many there are in all.
    """

    def __init__(self, rows: Iterable[T] = (), total: int | None = None) -> None:
        super().__init__(rows)
        self.total = len(self) if total is None else total

    @property
    def truncated(self) -> bool:
        """Whether there are more than are listed."""
        return self.total > len(self)
