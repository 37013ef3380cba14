"""Tiny environments of several agents, with known answers."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

LIFE = {"a": [(0, 12)], "b": [(0, 4)], "c": [(3, 10)]}
"""When each agent is there: it acts at the ticks from the first to before the second."""
REBORN = {"a": [(0, 12)], "b": [(0, 4), (8, 12)], "c": [(3, 10)]}


class Crowd(ParallelEnv):
    """Each agent sees a symbol of 3, the tick and what it did last; the action that repeats the symbol earns 1.

    Agents come and go as `life` says: those that go before the last tick die, the last ones are truncated.
    """

    def __init__(self, reborn=False):
        self.metadata, self.render_mode = {"name": "crowd"}, None
        self.life = REBORN if reborn else LIFE
        self.possible_agents, self.agents = list(self.life), []
        self._spaces = {a: (spaces.Box(0, 12, (3,), np.float32), spaces.Discrete(3)) for a in self.possible_agents}

    def observation_space(self, agent):
        return self._spaces[agent][0]

    def action_space(self, agent):
        return self._spaces[agent][1]

    def _there(self):
        return [a for a, spans in self.life.items() if any(start <= self._tick < end for start, end in spans)]

    def _observe(self, agent):
        return np.array([self._symbols[agent], self._tick, self._last.get(agent, 0)], np.float32)

    def _draw(self):
        self._symbols = {agent: int(self._random.integers(3)) for agent in self.possible_agents}

    def reset(self, seed=None, options=None):
        if seed is not None or not hasattr(self, "_random"):
            self._random = np.random.default_rng(seed)
        self._tick, self._last = 0, {}
        self._draw()
        self.agents = self._there()
        return {agent: self._observe(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions):
        acted = list(self.agents)
        assert set(actions) == set(acted), (actions, acted)
        rewards = {agent: float(actions[agent] == self._symbols[agent]) for agent in acted}
        self._last = {agent: int(actions[agent]) for agent in acted}
        self._tick += 1
        self._draw()
        self.agents = self._there()
        born = [agent for agent in self.agents if agent not in acted]
        last = self._tick == 12
        told = [*acted, *born]
        rewards |= dict.fromkeys(born, 0.0)
        terminations = {agent: agent not in self.agents and not last for agent in told}
        truncations = {agent: agent not in self.agents and last for agent in told}
        return {a: self._observe(a) for a in told}, rewards, terminations, truncations, {a: {} for a in told}


class Pair(ParallelEnv):
    """A speaker sees a symbol of 3 and its action is what the listener sees, who earns for both by naming the symbol:
    different spaces, episodes of 8 ticks. The best return is 16."""

    def __init__(self):
        self.metadata, self.render_mode = {"name": "pair"}, None
        self.possible_agents, self.agents = ["speaker", "listener"], []

        self._spaces = {
            "speaker": (spaces.Discrete(3), spaces.Discrete(4)),
            "listener": (spaces.Box(0, 1, (4,), np.float32), spaces.Discrete(3)),
        }

    def observation_space(self, agent):
        return self._spaces[agent][0]

    def action_space(self, agent):
        return self._spaces[agent][1]

    def reset(self, seed=None, options=None):
        if seed is not None or not hasattr(self, "_random"):
            self._random = np.random.default_rng(seed)
        self._tick, self._word, self._meant = 0, 0, 0
        self._symbol = int(self._random.integers(3))
        self.agents = list(self.possible_agents)
        return self._observations(), {agent: {} for agent in self.agents}

    def _observations(self):
        return {"speaker": np.int64(self._symbol), "listener": np.eye(4, dtype=np.float32)[self._word]}

    def step(self, actions):
        reward = float(self._tick > 0 and actions["listener"] == self._meant)
        self._word, self._meant = int(actions["speaker"]), self._symbol
        self._symbol = int(self._random.integers(3))
        self._tick += 1
        over = self._tick == 9
        told = list(self.agents)
        observations = self._observations()
        self.agents = [] if over else told
        infos = {agent: {} for agent in told}
        return observations, dict.fromkeys(told, reward), dict.fromkeys(told, False), dict.fromkeys(told, over), infos


class Rounds(AECEnv):
    """Agents take turns in the order of `ORDER`. Each turn gives every agent something, which tells whose turn it was;
    b dies in the eighth turn, which is c's. An observation is the number of turns so far, and its agent's number."""

    ORDER = "abcabbacacaaca"
    DEATH = 8

    def __init__(self):
        super().__init__()
        self.metadata, self.render_mode = {"name": "rounds", "is_parallelizable": False}, None
        self.possible_agents, self.agents = ["a", "b", "c"], []
        self._spaces = {a: (spaces.Box(0, 20, (2,), np.float32), spaces.Discrete(2)) for a in self.possible_agents}

    def observation_space(self, agent):
        return self._spaces[agent][0]

    def action_space(self, agent):
        return self._spaces[agent][1]

    @staticmethod
    def earned(agent, turn):
        return float(2**turn) / 64 + "abc".index(agent)

    def observe(self, agent):
        return np.array([self._turn, "abc".index(agent) + 1], np.float32)

    def reset(self, seed=None, options=None):
        self._turn, self.agents = 0, list(self.possible_agents)
        self.agent_selection = self.ORDER[0]
        nothing = dict.fromkeys(self.agents, 0.0)
        self.rewards, self._cumulative_rewards = dict(nothing), dict(nothing)
        self.terminations, self.truncations = (dict.fromkeys(self.agents, False) for _ in range(2))
        self.infos = {agent: {} for agent in self.agents}

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0
        self.rewards = {a: self.earned(a, self._turn) for a in self.agents}
        self._turn += 1
        over = self._turn == len(self.ORDER)
        self.terminations = {a: a == "b" and self._turn == self.DEATH for a in self.agents}
        self.truncations = dict.fromkeys(self.agents, over)
        self.agent_selection = self.agents[0] if over else self.ORDER[self._turn]
        self._accumulate_rewards()
        self._deads_step_first()
