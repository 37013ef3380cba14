"""What runs in this process now, for reports."""

from __future__ import annotations


class Running:
    """Tasks and calls that run here.

    Attributes:
        begun: their names, and since when (`time.perf_counter` seconds), by task.
        untaken: those of them that yield values and wait until these are taken: how many there are.
    """

    def __init__(self) -> None:
        self.begun: dict[bytes, tuple[str, float]] = {}
        self.untaken: dict[bytes, int] = {}
