"""Ids of the tasks: a name and a size (`copy-4`), or a generator of reasoning-gym (`reasoning_gym/chain_sum`)."""

from __future__ import annotations

import re
from typing import Any

from .reasoning import PREFIX, ReasoningGym
from .sentiment import Sentiment
from .tasks import Copy, Count, Recall, Reverse, Sort, Sums

TASKS: dict[str, tuple[type[Any], str, tuple[int, ...]]] = {
    "copy": (Copy, "length", (4, 8)),
    "reverse": (Reverse, "length", (4,)),
    "sort": (Sort, "length", (4, 6)),
    "count": (Count, "length", (8,)),
    "sums": (Sums, "length", (1, 2)),
    "recall": (Recall, "turns", (3,)),
    "sentiment": (Sentiment, "length", (32,)),
}
"""Name → class, what its size is called, and sizes that are listed; any other works, too."""
_ID = re.compile(r"([a-z]+)-(\d+)")


def task_ids() -> list[str]:
    """Return the ids that are listed."""
    return [f"{name}-{size}" for name, (_, _, sizes) in TASKS.items() for size in sizes]


def task_id(name: str) -> bool:
    """Return whether a name is that of a task."""
    found = _ID.fullmatch(name)
    return name.startswith(PREFIX) or (found is not None and found[1] in TASKS)


def task_spec(name: str) -> tuple[type[Any], dict[str, Any]]:
    """Return class and arguments of a task."""
    if name.startswith(PREFIX):
        return ReasoningGym, {"name": name.removeprefix(PREFIX)}
    kind, size = name.split("-")
    entry, argument, _ = TASKS[kind]
    return entry, {argument: int(size)}
