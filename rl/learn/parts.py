"""States of learners that keep a part of the moments each, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime import ObjectRef, get

PART = "begins_at"
"""In an optimizer's state: the parameter that its moments begin with, where they are not those of all."""


@dataclass(frozen=True)
class Parts:
    """A snapshot: references to the states of all learners."""

    refs: tuple[ObjectRef, ...]

    def whole(self) -> Any:
        """The state as it would be of one."""
        return whole(get(list(self.refs)))


def whole(states: Sequence[Any]) -> Any:
    """One state of those of all learners, which differ in the moments alone: these are joined, in their order."""
    first = states[0]
    if not isinstance(first, Mapping):
        return first
    if PART not in first:
        return {name: whole([state[name] for state in states]) for name in first}
    ordered = sorted(states, key=lambda state: state[PART])
    return {
        name: np.concatenate([state[name] for state in ordered]) if isinstance(value, np.ndarray) else value
        for name, value in first.items()
        if name != PART
    }
