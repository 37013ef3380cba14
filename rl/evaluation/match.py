"""Matches: one policy plays an agent of each environment, another one, or chance, all the others."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ...envs import JointSpace, allowed_action, codec, derive_seed
from ...runtime import InputError

RANDOM = "random"
_OWN, _OTHER = "own/", "other/"


class Match:
    """Acts in the joint environment as a policy does: in environment e of a batch, `policy` plays agent e, counted
    round, so that every seat is played as often; `opponent`, or None for actions at random, plays all the others.

    Raises InputError if the policy is of one agent, or the opponent's agents are others.
    """

    def __init__(self, policy: Any, opponent: Any | None, *, seed: int) -> None:
        self.observation_space, self.action_space = policy.observation_space, policy.action_space
        if not isinstance(self.observation_space, JointSpace):
            raise InputError("against is given, but the policy is of one agent: nobody plays against it")
        self._policy, self._opponent = policy, RandomActor(policy, seed) if opponent is None else opponent
        known = getattr(self._opponent.observation_space, "agent_spaces", {})
        self.agents = list(self.observation_space.agent_spaces)
        if list(known) != self.agents:
            raise InputError(
                f"the opponent plays {', '.join(known) or 'one agent'}, but the policy {', '.join(self.agents)}"
            )
        self._actions = codec(self.action_space)

    def act(self, observations: Any, *, deterministic: bool = False) -> Any:
        """Actions of all agents, for a batch of joint observations."""
        return self.act_with_memory(observations, deterministic=deterministic)[0]

    def initial_memory(self, rows: int) -> dict[str, np.ndarray] | None:
        """What both remember at the beginning; None if they remember nothing."""
        found: dict[str, np.ndarray] = {}
        for prefix, actor in ((_OWN, self._policy), (_OTHER, self._opponent)):
            memory = actor.initial_memory(rows) if hasattr(actor, "initial_memory") else None
            found |= {f"{prefix}{name}": leaf for name, leaf in (memory or {}).items()}
        return found or None

    def act_with_memory(
        self, observations: Any, memory: Any = None, episode_start: Any = None, *, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """As `act`, and what is remembered after it."""
        rows, _ = codec(self.observation_space).as_batch(observations)
        own, own_memory = self._ask(
            self._policy, _OWN, observations, memory, episode_start, deterministic=deterministic
        )
        other, other_memory = self._ask(
            self._opponent, _OTHER, observations, memory, episode_start, deterministic=deterministic
        )
        chosen = {agent: np.array(other[agent]) for agent in self.agents}
        for index, agent in enumerate(self.agents):
            seats = np.arange(len(rows)) % len(self.agents) == index
            chosen[agent][seats] = np.asarray(own[agent])[seats]
        return chosen, (own_memory | other_memory) or None

    @staticmethod
    def _ask(
        actor: Any, prefix: str, observations: Any, memory: Any, episode_start: Any, *, deterministic: bool
    ) -> tuple[Any, dict[str, np.ndarray]]:
        own = {key.removeprefix(prefix): leaf for key, leaf in (memory or {}).items() if key.startswith(prefix)}
        if not own:
            return actor.act(observations, deterministic=deterministic), {}
        chosen, after = actor.act_with_memory(observations, own, episode_start, deterministic=deterministic)
        return chosen, {f"{prefix}{key}": leaf for key, leaf in after.items()}


class RandomActor:
    """Plays all agents at random, among the actions that masks allow."""

    def __init__(self, policy: Any, seed: int) -> None:
        self.observation_space, self.action_space = policy.observation_space, policy.action_space
        self._space = copy.deepcopy(policy.action_space)
        self._space.seed(derive_seed(seed, "random opponent") % 2**31)

    def act(self, observations: Any, *, deterministic: bool = False) -> Any:
        """Actions of all agents, for a batch of joint observations."""
        del deterministic  # chance is no less so
        seen, actions = codec(self.observation_space), codec(self.action_space)
        rows, _ = seen.as_batch(observations)
        joint = np.empty(len(rows), actions.dtype)
        for row in range(len(rows)):
            joint[row] = actions.pack(allowed_action(self._space, self._space.sample(), seen.unpack(rows[row])))
        return actions.unpack(joint)
