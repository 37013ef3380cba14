"""PettingZoo's environments in which agents act one after the other (AEC), as parallel ones."""

from __future__ import annotations

from typing import Any


class Turns:
    """A parallel environment of an AEC one: each step is one agent's turn, whose action alone is taken.

    `infos[agent]["acts"]` says whose turn is next; all others wait. Rewards are those that the turn gave to any agent,
    and an agent that it ended is told so at once, with what it sees then, without a turn of its own to die in.

    Attributes:
        agents_env: the AEC environment.
        possible_agents, agents: as of a parallel environment.
    """

    def __init__(self, agents_env: Any) -> None:
        """Adapt an environment."""
        self.agents_env = agents_env
        self.metadata = dict(getattr(agents_env, "metadata", {}))
        self.render_mode = getattr(agents_env, "render_mode", None)
        self.possible_agents = list(agents_env.possible_agents)
        self.state_space = getattr(agents_env, "state_space", None)
        self.agents: list[Any] = []

    @property
    def unwrapped(self) -> Turns:
        """The environment itself."""
        return self

    def observation_space(self, agent: Any) -> Any:
        """Of one agent."""
        return self.agents_env.observation_space(agent)

    def action_space(self, agent: Any) -> Any:
        """Of one agent."""
        return self.agents_env.action_space(agent)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Any, Any], dict[Any, dict[str, Any]]]:
        """Begin an episode."""
        self.agents_env.reset(seed=seed, options=options)
        self._pass_turns_of_the_dead()
        self.agents = list(self.agents_env.agents)
        return {agent: self.agents_env.observe(agent) for agent in self.agents}, self._infos(self.agents)

    def step(
        self, actions: dict[Any, Any]
    ) -> tuple[dict[Any, Any], dict[Any, float], dict[Any, bool], dict[Any, bool], dict[Any, dict[str, Any]]]:
        """Take the turn of the agent whose it is."""
        env = self.agents_env
        before = list(self.agents)
        if not before:
            return {}, {}, {}, {}, {}
        env.step(actions[env.agent_selection])
        told = list(dict.fromkeys([*before, *env.agents]))
        there = set(env.agents)
        observations = {agent: env.observe(agent) for agent in told if agent in there}
        rewards = {agent: env.rewards.get(agent, 0.0) for agent in told}
        terminations = {agent: bool(env.terminations.get(agent, False)) for agent in told}
        # Whoever is gone without a word was cut off.
        truncations = {agent: bool(env.truncations.get(agent, agent not in there)) for agent in told}
        infos = {agent: dict(env.infos.get(agent, {})) for agent in told}
        self._pass_turns_of_the_dead()
        self.agents = list(env.agents)
        return observations, rewards, terminations, truncations, infos | self._infos(self.agents)

    def _pass_turns_of_the_dead(self) -> None:
        """Take the empty turns of agents that have died."""
        env = self.agents_env
        while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
            env.step(None)

    def _infos(self, agents: list[Any]) -> dict[Any, dict[str, Any]]:
        turn = self.agents_env.agent_selection
        return {agent: {**self.agents_env.infos.get(agent, {}), "acts": agent == turn} for agent in agents}

    def render(self) -> Any:
        """Render the environment."""
        return self.agents_env.render()

    def state(self) -> Any:
        """The environment's global state."""
        return self.agents_env.state()

    def close(self) -> None:
        """Close the environment."""
        self.agents_env.close()
