"""Who acts in the environments of a share: one policy, or those of several agents. Each row has weights of its own.

A row is an environment of the group. What is searched is told by policy, in the order of the search space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ...envs import Episode, GroupStep, JointSpace, Seats, agents_of_episodes, codec
from ..data.moments import ObservationMoments
from ..models.build import build_model
from ..models.joint_model import JointModel
from ..models.joint_spec import AnySpec, JointSpec
from .noise import ALONE
from .population import Population

_ROWS_PER_MERGE = 4096
"""Observations that are kept before their statistics are taken."""


class Players(Protocol):
    """Acts for all of a group."""

    def seat(self, row: int, weights: np.ndarray) -> None:
        """Let an environment be played with these flat weights from now on."""

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Environment actions [size, …] for what is observed [size, …]."""

    def see(self, observations: np.ndarray, counted: np.ndarray) -> None:
        """Count what is observed in rows where `counted` [size] bool is true, where statistics are kept."""

    def episodes(self, step: GroupStep) -> Sequence[Episode]:
        """Those that ended with a step, of several agents with what each one's return was."""

    def scores(self, episode: Episode) -> list[float]:
        """What counts of an episode for each policy that is searched."""

    def moments(self) -> dict[str, Any]:
        """Statistics of what was counted, by policy that is searched; empty where observations are not normalized."""


def make_players(spec: AnySpec, size: int, weights: np.ndarray) -> Players:
    """Those of `size` environments, all of whom have the flat `weights` at first."""
    return (
        AgentPlayers(spec, size, weights) if isinstance(spec, JointSpec) else Player(build_model(spec), size, weights)
    )


class Player:
    """One policy, of rows with weights of their own. See `Players`."""

    def __init__(self, model: Any, size: int, weights: np.ndarray) -> None:
        model.set_weights(weights)
        self._model, self._population = model, Population(model, size)
        normalized = model.normalizer is not None
        self._moments = ObservationMoments(model.spec.observation_space) if normalized else None
        self._seen: list[np.ndarray] = []

    def seat(self, row: int, weights: np.ndarray) -> None:
        """As of `Players`."""
        self._population.set_weights(row, weights)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """As of `Players`."""
        model = self._model
        actions = model.choose(self._population.outputs(model.encode(observations)), None).numpy()
        if actions.dtype.kind == "f":
            model.check_finite(observations, action=actions)
        found: np.ndarray = model.environment_actions(actions)
        return found

    def see(self, observations: np.ndarray, counted: np.ndarray) -> None:
        """As of `Players`."""
        if self._moments is not None:
            self._seen.append(observations[counted])
            if sum(map(len, self._seen)) >= _ROWS_PER_MERGE:
                self._merge(self._moments)

    def episodes(self, step: GroupStep) -> Sequence[Episode]:
        """As of `Players`."""
        return step.episodes

    def scores(self, episode: Episode) -> list[float]:
        """Its return."""
        return [episode.return_]

    def moments(self) -> dict[str, Any]:
        """As of `Players`."""
        return {} if (found := self.statistics()) is None else {ALONE: found}

    def statistics(self) -> dict[str, Any] | None:
        """Those of what was counted; None where there are none."""
        if self._moments is None:
            return None
        self._merge(self._moments)
        return self._moments.state()

    def _merge(self, moments: ObservationMoments) -> None:
        if self._seen:
            moments.merge(np.concatenate(self._seen))
            self._seen = []


class AgentPlayers:
    """The policies of several agents: of each, a row for each of its agents in each environment. See `Players`."""

    def __init__(self, spec: JointSpec, size: int, weights: np.ndarray) -> None:
        self._models, self._seats = JointModel(spec), spec.seats(size, critic=False)
        self._space: JointSpace = spec.observation_space
        self._searched = [name for name in spec.policies if name not in spec.frozen]
        self._joint = np.empty(size, codec(spec.action_space).dtype)
        parts = self._models.split(weights)
        self._players = {
            name: Player(self._models.models[name], seats.count, parts[name]) for name, seats in self._seats.items()
        }

    def seat(self, row: int, weights: np.ndarray) -> None:
        """As of `Players`."""
        for name, part in self._models.split(weights).items():
            agents = len(self._seats[name].agents)
            for own in range(row * agents, (row + 1) * agents):
                self._players[name].seat(own, part)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """As of `Players`; what stands for agents that do not act means nothing."""
        for name, seats in self._seats.items():
            seats.put_actions(self._players[name].act(seats.observations(observations)), self._joint)
        return self._joint

    def see(self, observations: np.ndarray, counted: np.ndarray) -> None:
        """As of `Players`, of agents that act."""
        for name in self._searched:
            seats: Seats = self._seats[name]
            acts = seats.of_agents(observations, "acts").astype(np.bool_)
            self._players[name].see(seats.observations(observations), counted.repeat(len(seats.agents)) & acts)

    def episodes(self, step: GroupStep) -> Sequence[Episode]:
        """As of `Players`."""
        return agents_of_episodes(self._space, step)

    def scores(self, episode: Episode) -> list[float]:
        """Sums of the returns of each policy's agents."""
        return [sum(episode.agents[agent] for agent in self._seats[name].agents) for name in self._searched]

    def moments(self) -> dict[str, Any]:
        """As of `Players`."""
        found = {name: self._players[name].statistics() for name in self._searched}
        return {name: own for name, own in found.items() if own is not None}
