"""Futures of values: those of `concurrent.futures`, with time limits that are read as everywhere else."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from .plain_numbers import as_timeout


class ValueFuture(Future):
    """A future of an object's value. A negative time limit is one of 0, as for Python's own futures."""

    def result(self, timeout: float | None = None) -> Any:
        """Return the value, or raise what stands for it; TimeoutError after `timeout` seconds."""
        return super().result(self._left(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception that stands for the value, if one does; TimeoutError after `timeout` seconds."""
        return super().exception(self._left(timeout))

    def _left(self, timeout: float | None) -> float | None:
        """Return how many seconds to wait; None: without limit."""
        return as_timeout("a future", None if timeout is None else max(timeout, 0))
