"""What is wrong with what a group's environments return, told with the environment, its index, seed and step."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from .action_mask import MaskGuard
from .contract import flags_problem, reset_problem, reward_problem, step_problem
from .errors import EnvContractError, EnvTimeoutError
from .group_progress import GroupProgress
from .observation_guard import ObservationGuard
from .spaces import MASK, SpaceCodec


class GroupChecks:
    """Checks what the environments of a group return; raises EnvContractError."""

    def __init__(self, progress: GroupProgress, observations: SpaceCodec, actions: SpaceCodec, mode: str) -> None:
        """Check observations and masks of a group; `mode` as in `ObservationGuard`."""
        self._progress, self._codec = progress, observations
        self._guard = ObservationGuard(observations, len(progress.seeds), mode)
        self._masks = MaskGuard(observations, actions)
        self.has_masks = self._masks.is_needed

    @property
    def outside(self) -> Callable[[np.ndarray], int | None]:
        """What finds the first row of observations that lies outside; `observations` says which bounds count then."""
        return self._guard.outside

    def observations(self, observations: np.ndarray, source: str) -> None:
        """Refuse observations that would spoil all weights, or that the policy would misread."""
        row = self._guard.outside(observations)
        while row is not None:
            self.observation(row, self._codec.unpack(observations[row]), source)
            row = self._guard.outside(observations)

    def masks(self, observations: np.ndarray, source: str) -> None:
        """Refuse masks that allow nothing, where an action is to be chosen."""
        row = self._masks.empty(observations)
        if row is not None:
            self.fail(row, f"{source} returned an {MASK} that allows no action: end the episode there")

    def observation(self, index: int, observation: Any, source: str) -> None:
        """Refuse one observation that does not fit."""
        refusal = self._guard.refusal(observation, f"{self._progress.name(index)}: {source}")
        if refusal is not None:
            self.fail(index, f"{source} returned {refusal}")

    def reset_result(self, index: int, result: Any) -> None:
        """Refuse what `reset` returned."""
        self.fail(index, reset_problem(result, self._codec.space))

    def rewards(self, rewards: np.ndarray) -> None:
        """Refuse rewards that would spoil all weights (numpy also takes None for NaN)."""
        for index, reward in enumerate(rewards.tolist()):
            if not math.isfinite(reward):
                self.fail(index, reward_problem(reward))

    def flags(self, index: int, terminated: Any, truncated: Any) -> None:
        """Refuse the flags of an end that are none: what Python calls true may mean something else, such as "no"."""
        problem = flags_problem(terminated, truncated)
        if problem is not None:
            self.fail(index, problem)

    def explain(self, observations: Sequence[Any], rewards: Sequence[Any], error: Exception) -> None:
        """Raise what is wrong with the results of a step of all, if it is that which led to an error."""
        for index, (observation, reward) in enumerate(zip(observations, rewards, strict=True)):
            self.explain_one(index, (observation, reward, False, False, {}), error)

    def explain_one(self, index: int, result: Any, error: Exception) -> None:
        """Raise what is wrong with the result of one environment's step, if it is that which led to an error."""
        problem = None if isinstance(error, EnvContractError) else step_problem(result, self._codec.space)
        if problem is not None:
            self.fail(index, problem)

    def fail(self, index: int, problem: str | None) -> NoReturn:
        """Raise EnvContractError with where it happened."""
        name, when = self._progress.name(index), self._progress.when(index)
        raise EnvContractError(f"{name}: {problem or 'the observation does not fit its space'} ({when})") from None


def fail_timeout(progress: GroupProgress, limit: float | None, index: int, doing: str) -> NoReturn:
    """Raise EnvTimeoutError with where it happened."""
    error = EnvTimeoutError(f"{progress.name(index)}: {doing} had not returned after {limit:g} s")
    error.add_note(progress.note(index, doing))
    raise error from None
