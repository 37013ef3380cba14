"""What the driver and the rollout workers of a training tell each other outside of calls: a call cannot be interrupted,
and a process that ends has no answer to give.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from ...envs import EnvTimeoutError
from ...runtime import engine_name, lookup, publish

SECONDS_BETWEEN_QUESTIONS = 0.5
"""A question takes 0.1 ms."""


class TrainingClosedError(RuntimeError):
    """The training was closed while a rollout was being made; nobody waits for the rollout any more."""


@dataclass(frozen=True)
class Channel:
    """A few values published under the name of one training; picklable."""

    name: str = field(default_factory=lambda: f"training/{uuid.uuid4().hex}")
    """Unique; no random number of the training comes from it."""
    between_processes: bool = field(default_factory=lambda: engine_name() != "serial")
    """Whether driver and workers are processes of their own."""

    def close(self) -> None:
        """Tell the workers that the training is being closed."""
        if self.between_processes:
            publish(f"{self.name}/closing", True)

    def ask(self, asked: float, now: float) -> float:
        """Ask whether the training is being closed, if it was not asked just before; return when it was asked last.

        Raises:
            TrainingClosedError: it is.
        """
        if not self.between_processes or now - asked < SECONDS_BETWEEN_QUESTIONS:
            return asked
        if lookup(f"{self.name}/closing"):
            raise TrainingClosedError("the training was closed during a rollout")
        return now

    def report(self, group: int, text: str) -> None:
        """Leave a report of a group whose environment does not return, before its process is ended."""
        publish(f"{self.name}/stuck/{group}", text)

    def raise_reported(self, group: int) -> None:
        """Raise EnvTimeoutError if an earlier try of the same call has left a report."""
        text = lookup(f"{self.name}/stuck/{group}") if self.between_processes else None
        if text is not None:
            raise EnvTimeoutError(text)
