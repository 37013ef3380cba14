"""The observation space of several agents together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, MultiBinary


class JointSpace(Dict):
    """What all agents of an environment see, and what became of each, as one Dict of parts:

    agents: each one's observation, by name; some element of its space while it is not there.
    acts: [n] whether the next step takes an action of it. One that is there and does not act waits for its turn.
    rewards: [n] float64, of the last step.
    returns: [n] float64, their sums over the episode so far.
    terminations, truncations: [n] whether the last step ended its part in the episode, and how.
    state: what the environment's own `state()` gives, where it is asked for.
    """

    def __init__(self, agents: Mapping[str, Space], *, turns: bool = False, state: Space | None = None) -> None:
        """Join the spaces of agents, in their order.

        Args:
            agents: each one's, by name.
            turns: whether agents that are there may have to wait.
            state: of the environment's state; None: it is left out.
        """
        count = len(agents)
        numbers = Box(-np.inf, np.inf, (count,), np.float64)
        parts: list[tuple[str, Space]] = [
            ("agents", Dict(list(agents.items()))),
            ("acts", MultiBinary(count)),
            ("rewards", numbers),
            ("returns", numbers),
            ("terminations", MultiBinary(count)),
            ("truncations", MultiBinary(count)),
        ]
        super().__init__([*parts, *([] if state is None else [("state", state)])])
        self.agent_spaces, self.turns, self.state_space = dict(agents), turns, state
