"""Whether a recorded schedule leads to the weights that a run has saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime import InputError
from ..algorithm import Algorithm
from ..checkpoint import find_run
from ..metrics import read_metrics
from .algorithm import ScheduledAlgorithm
from .schedule import from_lines


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What following a run's schedule gave."""

    updates: int
    """Updates until the run's newest checkpoint."""
    rollouts: int
    """Rollouts of a simulation group that they learned from or dropped."""
    timesteps: int
    """Environment steps in them."""
    saved_sha256: str
    """Of the weights in the checkpoint."""
    followed_sha256: str
    """Of those that the schedule led to."""

    @property
    def same(self) -> bool:
        """Whether they are the same, bit for bit."""
        return self.saved_sha256 == self.followed_sha256

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return asdict(self) | {"same": self.same}


def verify(
    algorithm: type[Algorithm],
    folder: str | Path,
    *,
    workers: int | None = None,
    engine: str | None = None,
    tell: Callable[[int, int], None] = lambda done, all_of_them: None,
) -> Verification:
    """Follow the schedule of a run of `algorithm` from its first update to its newest checkpoint, or to the one that
    `folder` is, on any number of workers.

    `tell` is given the number of updates done and of all. Raises InputError if nothing is recorded there, or if it is
    damaged.
    """
    if not issubclass(algorithm, ScheduledAlgorithm):
        raise InputError(
            f"{algorithm.name} waits for all groups before each update, so its weights follow from the settings alone "
            "and no schedule is recorded: train again with the settings in config.json, and compare weights_sha256"
        )
    run, checkpoint = find_run(folder)
    with algorithm.load(checkpoint, workers=workers, engine=engine) as loaded:
        saved = loaded.policy.weights_sha256()
        records = from_lines(read_metrics(run / "schedule.jsonl"))[: loaded.iteration]
        if len(records) < loaded.iteration:
            raise InputError(
                f"schedule.jsonl of run {str(run)!r} has {len(records)} updates, but the checkpoint has seen "
                f"{loaded.iteration}: it was not written by this run, or is not whole"
            )
        followed = loaded.follow(records, lambda done: tell(done, len(records)))
        taken = {each for record in records for each in (*record.choice.dropped, *record.choice.learned)}
        return Verification(
            updates=len(records),
            rollouts=len(taken),
            timesteps=loaded.timesteps,
            saved_sha256=saved,
            followed_sha256=followed,
        )
