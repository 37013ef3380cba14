"""gymnasium's TimeLimit around the environments of a group: a comparison for all of them in the place of a call around
each step."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
from gymnasium.wrappers import TimeLimit

from .group_progress import GroupProgress

End = tuple[int, Any, Any]
"""Of an episode that a step ended: its row, whether it was terminated, and whether truncated."""


class TimeLimits:
    """Cuts the episodes of a group off.

    Attributes:
        next: `steps` of the group, before which no episode has as many as it may.
    """

    def __init__(self, progress: GroupProgress) -> None:
        """Cut off what is at a place; nothing before `within`."""
        self._progress, self._limit = progress, math.inf
        self.next = math.inf

    def within(self, envs: Sequence[gymnasium.Env]) -> list[gymnasium.Env]:
        """Return what is to be reset and stepped in the place of environments, from now on: where each has the same
        TimeLimit around everything, what is within it. `cut` then does what the wrapper did."""
        limits = {vars(env)["_max_episode_steps"] if type(env) is TimeLimit else math.inf for env in envs}
        if len(limits) != 1 or math.inf in limits:
            self.next = math.inf
            return list(envs)
        self._limit, self.next = limits.pop(), 0
        return [env.env for env in envs if isinstance(env, TimeLimit)]

    def cut(self, ended: Sequence[End]) -> list[End]:
        """Return whose episodes are over after a step, of which the environments say that these are."""
        steps, limit, begins = self._progress.steps, self._limit, self._progress.begins
        self.next = min(begins) + limit
        over = {row: (terminated, truncated) for row, terminated, truncated in ended}
        for row, begin in enumerate(begins):
            if steps - begin >= limit:
                over[row] = over.get(row, (False,))[0], True
        return [(row, *over[row]) for row in sorted(over)]
