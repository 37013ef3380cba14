"""Who sits where: the rows (environment, agent) of a policy in a simulation group of joint environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from gymnasium import Space

from ..group_step import Episode, GroupStep
from ..spaces import codec
from .central import CRITIC, is_central, put_own, shared_view
from .joint_spaces import JointSpace


@dataclass(frozen=True)
class _Seat:
    """The rows in which one agent is."""

    agent: str
    index: int
    """Of the agent in the order of all."""
    environments: np.ndarray
    rows: np.ndarray


class Seats:
    """The rows of one policy: row e · k + j is the j-th of its agents in environment e of the group.

    Attributes:
        count: rows.
    """

    def __init__(
        self, space: JointSpace, agents: Sequence[str], size: int, *, seen: Space | None = None, critic: bool = False
    ) -> None:
        """Seat agents, which have one observation space and one action space, in each of `size` environments.

        Args:
            space: of joint observations.
            agents: names.
            size: number of environments.
            seen: space of what each row sees; None: its agent's observations alone.
            critic: whether the part of `seen` that a critic sees is filled; else it is zeros.
        """
        names = list(space.agent_spaces)
        self.agents, self.count = tuple(agents), size * len(agents)
        environments = np.arange(size)
        self._seats = [
            _Seat(agent, names.index(agent), environments, environments * len(agents) + position)
            for position, agent in enumerate(agents)
        ]
        self._space, self._own, self._fills = space, codec(space.agent_spaces[agents[0]]), critic
        self._seen = codec(seen) if seen is not None and is_central(seen) else None

    def observations(self, records: np.ndarray) -> np.ndarray:
        """[count, …] what each row sees, of joint observations [size]: a new array."""
        own = np.empty((self.count, *self._own.shape), self._own.dtype)
        for seat in self._seats:
            own[seat.rows] = records["agents"][seat.agent][seat.environments]
        if self._seen is None:
            return own
        rows = np.empty(self.count, self._seen.dtype)
        put_own(rows, own)
        if self._fills:
            shared = shared_view(self._space, records)
            for seat in self._seats:
                rows[CRITIC][seat.rows, : shared.shape[1]] = shared[seat.environments]
                rows[CRITIC][seat.rows, shared.shape[1] + seat.index] = 1
        return rows

    def one_each(self, first_index: int) -> np.ndarray:
        """[count] bool: one row of each environment, of its agents in turn: environment e of the run has agent e,
        counted round; `first_index` is that of the first environment."""
        count = len(self.agents)
        environments, positions = np.divmod(np.arange(self.count), count)
        return (first_index + environments) % count == positions

    def of_agents(self, records: np.ndarray, part: str) -> np.ndarray:
        """[count] a part that has an entry for each agent."""
        found = records[part]
        rows = np.empty(self.count, found.dtype)
        for seat in self._seats:
            rows[seat.rows] = found[seat.environments, seat.index]
        return rows

    def put_actions(self, actions: np.ndarray, joint: np.ndarray) -> None:
        """Write environment actions [count, …] into joint ones [size]."""
        for seat in self._seats:
            joint[seat.agent][seat.environments] = actions[seat.rows]

    def step(self, before: np.ndarray, step: GroupStep) -> GroupStep:
        """What a step of the group was for each row; `before` are the joint observations that it was taken from.

        Rows whose agent did not act are no transitions: `resets` tells which. They count as truncated, but where the
        agent waits for its turn.
        """
        after = step.final_observations
        acted = self.of_agents(before, "acts").astype(np.bool_)
        terminations = self.of_agents(after, "terminations").astype(np.bool_)
        cut = np.empty(self.count, np.bool_)
        for seat in self._seats:
            cut[seat.rows] = (step.terminations | step.truncations)[seat.environments]
        truncations = self.of_agents(after, "truncations").astype(np.bool_) | cut
        return GroupStep(
            observations=self.observations(step.observations),
            rewards=self.of_agents(after, "rewards").astype(np.float32),
            terminations=terminations,
            truncations=truncations if self._space.turns else truncations | ~acted,
            final_observations=self.observations(after),
            resets=~acted,
        )


def agents_of_episodes(space: Space, step: GroupStep) -> list[Episode]:
    """Return the episodes that ended with a step of a group, of several agents with what each one's return was."""
    if not isinstance(space, JointSpace) or not step.episodes:
        return step.episodes
    names = list(space.agent_spaces)
    returns = step.final_observations["returns"][step.terminations | step.truncations]
    return [
        msgspec.structs.replace(episode, agents=dict(zip(names, own, strict=True)))
        for episode, own in zip(step.episodes, returns.tolist(), strict=True)
    ]
