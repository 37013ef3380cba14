"""A PettingZoo environment as one gymnasium environment between joint spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict

from ...runtime import InputError
from ..action_mask import allows_nothing
from ..contract import reward_problem
from ..errors import EnvContractError
from ..spaces import MASK, codec
from .joint_spaces import JointSpace
from .turns import Turns


def has_agents(cls: type) -> bool:
    """Whether a class is of environments of several agents: PettingZoo's."""
    return any(base.__module__.partition(".")[0] == "pettingzoo" for base in cls.__mro__)


def is_joint(made: Any) -> bool:
    """Whether a factory returned an environment of several agents."""
    return has_agents(type(made)) or hasattr(made, "possible_agents")


def joint_env(made: Any, env_id: str) -> JointEnv:
    """Return an environment of PettingZoo's as one gymnasium environment.

    Raises:
        EnvContractError: it does not say which agents there may be.
    """
    if getattr(made, "possible_agents", None):
        return JointEnv(made)
    raise EnvContractError(
        f"{env_id}: {type(made).__name__} has no possible_agents: list there every agent that may ever be born, since "
        "each has a place of its own in rollouts and results"
    )


class JointEnv(gymnasium.Env):
    """All agents of a PettingZoo environment, stepped together between joint spaces.

    Observations are those of `JointSpace`, actions a Dict by agent, of which those of agents that do not act count for
    nothing; the reward is the sum of all agents'. An episode ends when no agent is left: terminated if one of the last
    ones was, else truncated. An agent that is in `agents` after a step is there, also if it was not before.

    Attributes:
        agents_env: the environment.
        agents: names of all agents that there may ever be, in order.
    """

    def __init__(self, agents_env: Any) -> None:
        """Make one of a parallel environment, or of one whose agents take turns (AEC)."""
        self._takes_turns = hasattr(agents_env, "agent_iter")
        agents_env = Turns(agents_env) if self._takes_turns else agents_env
        self.agents_env = agents_env
        self.agents: tuple[str, ...] = tuple(str(agent) for agent in agents_env.possible_agents)
        self._ids = dict(zip(self.agents, agents_env.possible_agents, strict=True))
        spaces = {name: agents_env.observation_space(agent) for name, agent in self._ids.items()}
        self.observation_space: JointSpace = JointSpace(spaces, turns=self._takes_turns)
        self.action_space: Dict = Dict([(name, agents_env.action_space(agent)) for name, agent in self._ids.items()])
        self.metadata = dict(getattr(agents_env, "metadata", {}))
        self.render_mode = getattr(agents_env, "render_mode", None)
        self._tells_state = False
        self._fillers = {name: codec(space).example() for name, space in spaces.items()}
        self._returns = np.zeros(len(self.agents))
        self._acts = np.zeros(len(self.agents), np.int8)

    def tell_state(self, env_id: str) -> None:
        """Have observations hold the environment's state, too.

        Raises:
            InputError: it has no `state_space`.
        """
        state = getattr(self.agents_env, "state_space", None)
        if state is None:
            raise InputError(
                f"environment {env_id!r} has no state_space, so a critic cannot see its state: choose 'observations'"
            )
        space, self._tells_state = self.observation_space, True
        self.observation_space = JointSpace(space.agent_spaces, turns=space.turns, state=state)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode with the agents that it begins with."""
        super().reset(seed=seed)
        observations, infos = self.agents_env.reset(seed=seed, options=options)
        self._returns = np.zeros(len(self.agents))
        fates = {"rewards": np.zeros(len(self.agents)), "terminations": self._flags({}), "truncations": self._flags({})}
        return self._seen(observations, infos, "reset()") | fates, infos

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step of all agents that act."""
        before = self._acts
        given = {self._ids[name]: action[name] for name, acts in zip(self.agents, before, strict=True) if acts}
        observations, rewards, terminations, truncations, infos = self.agents_env.step(given)
        there = set(self.agents_env.agents)
        earned = self._earned(rewards)
        terminated = self._flags(terminations)
        # Whoever has left without a word was cut off.
        gone = self._flags({agent: agent not in there for agent in self._ids.values()})
        truncated = (self._flags(truncations) | (before & gone)) & (1 - terminated)
        self._returns = self._returns + earned
        fates = {"rewards": earned, "terminations": terminated, "truncations": truncated}
        finished = not there and bool(terminated.any())
        joint = self._seen(observations, infos, "step()") | fates
        return joint, float(earned.sum()), finished, not there and not finished, infos

    def _earned(self, rewards: Any) -> np.ndarray:
        try:
            earned = np.array([float(rewards.get(agent, 0.0)) for agent in self._ids.values()])
        except (TypeError, ValueError, OverflowError):
            earned = np.full(len(self._ids), np.nan)
        if not np.isfinite(earned).all():
            for name, agent in self._ids.items():
                problem = reward_problem(rewards.get(agent, 0.0))
                if problem is not None:
                    raise EnvContractError(f"{problem} (of agent {name!r})")
        return earned

    def _seen(self, observations: Any, infos: Any, source: str) -> dict[str, Any]:
        there = set(self.agents_env.agents)
        turn = {agent: infos[agent]["acts"] for agent in there} if self._takes_turns else dict.fromkeys(there, True)
        self._acts = self._flags(turn)
        seen = {name: observations.get(agent, self._fillers[name]) for name, agent in self._ids.items()}
        for name, acts in zip(self.agents, self._acts, strict=True):
            if acts and self._ids[name] not in observations:
                raise EnvContractError(f"{source} returned no observation of {name!r}, which is in agents")
            if acts and allows_nothing(self.action_space[name], seen[name]):
                raise EnvContractError(
                    f"{source} returned an {MASK} that allows {name!r} no action: end the episode there"
                )
        joint = {"agents": seen, "acts": self._acts, "returns": self._returns}
        return joint | ({"state": self.agents_env.state()} if self._tells_state else {})

    def _flags(self, flags: Any) -> np.ndarray:
        return np.array([bool(flags.get(agent, False)) for agent in self._ids.values()], np.int8)

    def render(self) -> Any:
        """Render the environment."""
        return self.agents_env.render()

    def close(self) -> None:
        """Close the environment."""
        self.agents_env.close()


def tell_state(env: gymnasium.Env, env_id: str) -> None:
    """Have the observations of an environment of several agents hold its state, too.

    Raises:
        InputError: it has one agent, or no `state_space`.
    """
    inner = env.unwrapped
    if not isinstance(inner, JointEnv):
        raise InputError(f"environment {env_id!r} has one agent, whose critic sees what it sees")
    inner.tell_state(env_id)
