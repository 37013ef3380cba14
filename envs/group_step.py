"""What one step of a simulation group gives.

Of both classes thousands are made in a second: structs are made in a third of a dataclass's time, and collecting
garbage passes over them.
"""

from collections.abc import Mapping

import msgspec
import numpy as np


class Episode(msgspec.Struct, gc=False):
    """A finished episode.

    Attributes:
        environment: logical index of the environment in the run.
        index: how many episodes that environment finished before.
        return_: sum of rewards, undiscounted.
        length: number of steps.
        seed: what the reset that began it got; 0 where environments that a library steps together take none.
        end_step: steps the environment had taken in the run when it ended; (end_step, environment) orders the episodes
            of groups that are stepped equally far.
        actions: what it was played with, as bytes: [length, …] rows of the action space's codec in its smallest dtype;
            None where that is not kept.
        agents: return of each agent, whose sum `return_` is; empty where there is but one.
        opponent: in self-play against a snapshot, its hash; "" else, and where the opponent changed within the episode.
        seat: the agent that learned then.
    """

    environment: int
    index: int
    return_: float
    length: int
    seed: int
    end_step: int
    actions: bytes | None = None
    agents: Mapping[str, float] = {}
    opponent: str = ""
    seat: str = ""


class GroupStep(msgspec.Struct, gc=False):
    """What one step of a group gives.

    Attributes:
        observations: [size, …] where the next action is to be chosen: after the autoreset where an episode ended.
        rewards: [size], of a group itself float64.
        terminations: bool [size], the task ended; as the environment gave it, also where truncated too.
        truncations: bool [size], the episode was cut off.
        final_observations: [size, …] what the step itself led to: the last observation where an episode ended,
            elsewhere the same as `observations`, or these themselves.
        episodes: those that ended with this step, by environment.
        resets: bool [size], rows in which the step is no transition, as it only began the next episode, or no agent
            acted there; they count as truncated. None where there are none.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    final_observations: np.ndarray
    episodes: list[Episode] = []
    resets: np.ndarray | None = None
