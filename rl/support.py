"""What works with what: algorithms, observation spaces, action spaces, memories and masks.

There is no list of it: each cell is an algorithm asked for its model between two example spaces, as it is asked before
every training. So what the table calls supported is what a training accepts, and its refusals are those of a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from gymnasium import Space, spaces

from ..envs import MASK, codec
from ..runtime import InputError
from .declaration import Declaration
from .model_choice import choose_memory, choose_model

_VECTOR, _CHOICE = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4, start=1)
_ACTION = spaces.Box(-2, 3, (2,), np.float32)
_TEXT = spaces.Text(8)

OBSERVATIONS: dict[str, Space] = {
    "Box": _VECTOR,
    "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
    "Discrete": _CHOICE,
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Dict": spaces.Dict({"vector": _VECTOR, "pair": spaces.Tuple([_CHOICE, spaces.MultiBinary(2)])}),
    "Tuple": spaces.Tuple([_VECTOR, spaces.Dict({"choice": _CHOICE})]),
}
"""An example of each kind of observation."""
ACTIONS: dict[str, Space] = {
    "Discrete": _CHOICE,
    "MultiDiscrete": spaces.MultiDiscrete([2, 3], start=[0, 1]),
    "MultiBinary": spaces.MultiBinary(2),
    "Box": _ACTION,
    "unbounded Box": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "Dict": spaces.Dict({"move": _ACTION, "choose": spaces.Tuple([_CHOICE, spaces.MultiBinary(2)])}),
    "Tuple": spaces.Tuple([_ACTION, spaces.MultiDiscrete([2, 3])]),
}
"""An example of each kind of action."""
MEMORIES = ("none", "lstm", "gru", "transformer")


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A cell of the table."""

    algorithm: str
    """As in the command line."""
    observation: str
    """A key of `OBSERVATIONS`, or Text."""
    action: str
    """A key of `ACTIONS`, or Text."""
    memory: str
    """One of `MEMORIES`."""
    masked: bool
    """Whether the observation says which actions are allowed."""
    trains_agents: bool
    """Whether it trains several agents of an environment, too."""
    refusal: str | None
    """What a training says to it, and what works instead; None: it works."""


def combinations(algorithms: Iterable[type[Declaration]]) -> Iterator[Combination]:
    """All cells of these algorithms; those of language models, which work between texts alone, have one."""
    for algorithm in algorithms:
        if "language_model" in algorithm.models:
            yield _combination(algorithm, "Text", "Text", "none", masked=False)
            continue
        for action in ACTIONS:
            for memory in MEMORIES:
                for masked in (False, True):
                    for observation in OBSERVATIONS:
                        yield _combination(algorithm, observation, action, memory, masked)


def _combination(algorithm: type[Declaration], observation: str, action: str, memory: str, masked: bool) -> Combination:
    network = {} if memory == "none" else {"memory": memory}
    refusal = None
    try:
        choose_memory(algorithm, network)
        seen, chosen = example_observation(observation, action, masked), ACTIONS.get(action, _TEXT)
        choose_model(algorithm, "example", seen, chosen, network)
    except InputError as error:
        refusal = str(error)
    return Combination(
        algorithm=algorithm.name,
        observation=observation,
        action=action,
        memory=memory,
        masked=masked,
        trains_agents=algorithm.trains_agents,
        refusal=refusal,
    )


def example_observation(observation: str, action: str, masked: bool) -> Space:
    """The example of a kind of observation, with a mask beside it for the example of a kind of action."""
    space = OBSERVATIONS.get(observation, _TEXT)
    if not masked:
        return space
    return spaces.Dict([("observation", space), (MASK, spaces.MultiBinary(codec(ACTIONS[action]).row_size))])
