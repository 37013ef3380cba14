"""The small part of what rollouts give: what the driver reads of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from ...envs import Episode
from ..hashes import Digests, of_all


@dataclass(frozen=True)
class RolloutStats:
    """What a rollout tells the driver; or those of several groups together."""

    episodes: list[Episode]
    """Episodes that ended, in the order of their end."""
    environment_seconds: float
    """Time spent in the environments' steps."""
    inference_seconds: float
    """Time spent in the model's forward passes."""
    restore_seconds: float
    """Time spent on making the group, anew or from its state."""
    digests: Digests = field(default_factory=dict)
    """Hashes of the rollout, where they are recorded."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else there is to say of it."""
    examples: tuple[Mapping[str, Any], ...] = ()
    """Of a language model: some of what it was asked and said, JSON-able."""


def stats_of_groups(stats: Sequence[RolloutStats], workers: int | None) -> RolloutStats:
    """Those of rollouts together: the episodes that ended in them, by end step, then environment; times, also as
    metrics; and examples.

    With `workers`, which have simulated all groups in turn, what the one with most to do was busy for is known.
    """
    episodes = [episode for group in stats for episode in group.episodes]
    episodes.sort(key=attrgetter("end_step", "environment"))
    seconds = {
        name: sum(getattr(group, name) for group in stats)
        for name in ("environment_seconds", "inference_seconds", "restore_seconds")
    }
    metrics = {f"time/{name}": value for name, value in seconds.items()}
    if workers is not None:
        busy = [group.environment_seconds + group.inference_seconds for group in stats]
        metrics["time/slowest_worker_seconds"] = max(sum(busy[worker::workers]) for worker in range(workers))
    for group in stats:
        metrics |= group.metrics
    examples = tuple(example for group in stats for example in group.examples)
    digests = of_all(group.digests for group in stats)
    return RolloutStats(episodes, **seconds, digests=digests, metrics=metrics, examples=examples)
