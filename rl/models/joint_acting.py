"""What acts for all agents of an environment, by a policy for each: whose rows are whose, and who remembers what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...envs import Seats, as_batch, codec
from ...runtime import nearest
from ..data.memories import Memory, of_policies, of_policy, remembered_before
from .joint_spec import JointSpec


class JointActing(ABC):
    """A joint observation in, a joint action out, as `JointEnv` has them. Who decides is asked policy by policy.

    Attributes:
        spec: policies and who acts by which.
        observation_space, action_space: of the joint environment.
    """

    def __init__(self, spec: JointSpec) -> None:
        self.spec = spec
        self.observation_space, self.action_space = spec.observation_space, spec.action_space
        self._actions = codec(self.action_space)
        self._seats: tuple[int, dict[str, Seats]] = (-1, {})

    @abstractmethod
    def _initial(self, name: str, rows: int) -> Memory | None:
        """What a policy remembers at the beginning of `rows` lives; None without a memory."""

    @abstractmethod
    def _choose(
        self, name: str, rows: np.ndarray, acts: np.ndarray, memory: Memory | None, *, deterministic: bool
    ) -> tuple[np.ndarray, Memory | None]:
        """A policy's actions for its rows, ready for the environment, of which those with `acts` count; and its memory
        after that, which the others keep."""

    def act(self, observations: Any, *, deterministic: bool = False) -> Any:
        """Actions of all agents, by name, for one joint observation, or a batch [B] of them; as `Policy.act`. Or, as
        PettingZoo has it, for a dict of what those agents observe that are to act: then theirs alone."""
        if self.spec.has_memory:
            raise ValueError(
                "these policies remember earlier observations of an episode: use act_with_memory(observations, "
                "memory), which begins with initial_memory(rows)"
            )
        return self.act_with_memory(observations, deterministic=deterministic)[0]

    def initial_memory(self, rows: int) -> Memory | None:
        """What is remembered at the beginning of `rows` episodes, of all agents of each policy; None if nothing is."""
        begun = {name: self._initial(name, seats.count) for name, seats in self._seated(rows).items()}
        return of_policies(begun)

    def act_with_memory(
        self, observations: Any, memory: Any = None, episode_start: Any = None, *, deterministic: bool = False
    ) -> tuple[Any, Memory | None]:
        """As `Policy.act_with_memory`, observations as in `act`; the memory has a row for each agent of each
        environment, and those that do not act keep theirs."""
        if isinstance(observations, Mapping) and "agents" not in observations:
            joint, memory = self.act_with_memory(
                self._joint(observations), memory, episode_start, deterministic=deterministic
            )
            return {agent: joint[agent] for agent in observations}, memory
        records, single = as_batch(self.observation_space, observations)
        joint = np.zeros(len(records), self._actions.dtype)
        remembered: dict[str, Memory | None] = {}
        for name, seats in self._seated(len(records)).items():
            begins = None
            if episode_start is not None:
                begins = np.repeat(np.broadcast_to(episode_start, len(records)), len(seats.agents))
            before = remembered_before(of_policy(name, memory), self._initial(name, seats.count), begins)
            acts = seats.of_agents(records, "acts").astype(np.bool_)
            rows = seats.observations(records)
            actions, remembered[name] = self._choose(name, rows, acts, before, deterministic=deterministic)
            seats.put_actions(actions, joint)
        return self._actions.unpack(joint[0] if single else joint), of_policies(remembered)

    def _joint(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The joint observation in which the agents of `own` are to act, on what it says that they observe."""
        for agent in own:
            if agent not in self.spec.mapping:
                raise ValueError(f"there is no agent {agent!r}. {nearest(str(agent), self.spec.mapping)}")
        joint: dict[str, Any] = codec(self.observation_space).example()
        joint["agents"] = joint["agents"] | own
        joint["acts"] = np.array([agent in own for agent in self.spec.mapping], np.int8)
        return joint

    def _seated(self, size: int) -> dict[str, Seats]:
        known, seats = self._seats
        if known != size:
            seats = self.spec.seats(size, critic=False)
            self._seats = size, seats
        return seats
