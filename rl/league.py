"""Self-play against earlier selves: which opponent a rollout meets, and how strong each is.

Opponents are snapshots of the weights, named by their hash: none ever changes. Ratings are Elo's (Elo, 1978), moved by
each game in turn: R ← R + K · (score − 1 / (1 + 10^((R' − R) / 400))), score 1, ½ or 0. A snapshot joins with the
rating that the latest weights have then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..envs import Episode, stream
from ..runtime import ObjectRef

FIRST_RATING = 1200.0
K = 16.0
LATEST = "latest"


@dataclass(frozen=True)
class Opponent:
    """A snapshot, and its games against those that learned."""

    sha256: str
    """Of its weights."""
    timesteps: int
    """Environment steps after which they stood so."""
    version: int
    """Updates that they have seen."""
    rating: float
    games: int = 0
    won: int = 0
    drawn: int = 0


@dataclass(frozen=True)
class Meeting:
    """What a rollout of a group needs to play against a snapshot."""

    sha256: str
    weights: ObjectRef


@dataclass(frozen=True)
class League:
    """The table, and the snapshots' weights in the object store. A value: each change gives another."""

    rating: float = FIRST_RATING
    """Of the latest weights."""
    opponents: tuple[Opponent, ...] = ()
    """Oldest first."""
    weights: Mapping[str, ObjectRef] = field(default_factory=dict)
    """By hash."""

    def with_snapshot(self, sha256: str, timesteps: int, version: int, weights: ObjectRef) -> League:
        """The league that these weights have joined; this one if they are in it already."""
        if sha256 in self.weights:
            return self
        joined = Opponent(sha256, timesteps, version, self.rating)
        return replace(self, opponents=(*self.opponents, joined), weights={**self.weights, sha256: weights})

    def meeting(self, seed: int, group: int, rollout: int, *, latest: float, size: int) -> Meeting | None:
        """Whom rollout `rollout` of a group is played against: one of the newest `size` snapshots, all alike; None for
        the latest weights themselves, with probability `latest`."""
        if not self.opponents:
            return None
        drawn = stream(seed, "opponent", group, rollout)
        if drawn.random() < latest:
            return None
        pool = self.opponents[-size:]
        chosen = pool[int(drawn.integers(len(pool)))]
        return Meeting(chosen.sha256, self.weights[chosen.sha256])

    def after(self, episodes: Sequence[Episode]) -> League:
        """The league after games, in the order given; episodes without an opponent are none."""
        rating, table = self.rating, {opponent.sha256: opponent for opponent in self.opponents}
        for episode in episodes:
            if episode.opponent in table:
                score, other = score_of(episode), table[episode.opponent]
                moved = K * (score - expected_score(rating, other.rating))
                rating += moved
                table[other.sha256] = replace(
                    other,
                    rating=other.rating - moved,
                    games=other.games + 1,
                    won=other.won + (score == 0),
                    drawn=other.drawn + (score == 0.5),
                )
        return replace(self, rating=rating, opponents=tuple(table.values()))

    def to_json(self) -> dict[str, Any]:
        """All but the weights."""
        return {"rating": self.rating, "opponents": [asdict(opponent) for opponent in self.opponents]}

    @staticmethod
    def from_json(entries: Mapping[str, Any], weights: Mapping[str, ObjectRef]) -> League:
        """The inverse of `to_json`, with the weights by their hash."""
        return League(entries["rating"], tuple(Opponent(**own) for own in entries["opponents"]), dict(weights))


def expected_score(rating: float, other: float) -> float:
    """What Elo expects of a game: 1 is a win, 0 a loss."""
    return 1 / (1 + 10 ** ((other - rating) / 400))


def score_of(episode: Episode) -> float:
    """Of the agent in the episode's seat: 1 if it earned more than the others did on average, ½ if as much, else 0."""
    own = episode.agents[episode.seat]
    others = [earned for agent, earned in episode.agents.items() if agent != episode.seat]
    mean = sum(others) / len(others)
    return 0.5 if own == mean else float(own > mean)
