"""What an evaluation measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation measured."""

    episodes: int
    """Number of episodes."""
    episode_return_mean: float
    """Mean undiscounted return."""
    episode_return_std: float
    """Standard deviation of the returns (of the population: divided by the number of episodes)."""
    episode_length_mean: float
    """Mean number of steps."""
    returns: tuple[float, ...]
    """Return of each episode, ordered by environment, then by time."""
    lengths: tuple[int, ...]
    """Steps of each episode, in the same order."""
    agents: Mapping[str, float] = field(default_factory=dict)
    """Mean return of each agent, whose sum `episode_return_mean` is; empty where there is but one."""
    scores: tuple[float, ...] = ()
    """Of each episode that was played against somebody: 1 won, ½ drawn, 0 lost."""

    pass_at: Mapping[int, float] = field(default_factory=dict)
    """Of a language model: how likely one of k answers to a prompt is right, by k."""

    def to_json(self) -> dict[str, Any]:
        """The summary, without the single episodes."""
        names = ("episodes", "episode_return_mean", "episode_return_std", "episode_length_mean")
        told: dict[str, Any] = {name: getattr(self, name) for name in names}
        counts = {"won": self.scores.count(1), "drawn": self.scores.count(0.5), "lost": self.scores.count(0)}
        if self.agents:
            told["agents"] = dict(self.agents)
        if self.pass_at:
            told["pass_at"] = {str(k): chance for k, chance in self.pass_at.items()}
        return told | (counts if self.scores else {})
