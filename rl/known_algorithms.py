"""Which algorithms there are beside those that are loaded, for messages that name what works: told from above."""

from __future__ import annotations

from collections.abc import Callable, Iterable

_told: list[Callable[[], Iterable[object]]] = []


def tell_algorithms(load: Callable[[], Iterable[object]]) -> None:
    """Have `load` called, which loads a package's algorithms and returns them, before they are listed."""
    _told.append(load)


def load_algorithms() -> None:
    """Load all algorithms that are told of."""
    for load in _told:
        list(load())
