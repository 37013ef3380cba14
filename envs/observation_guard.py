"""The check of all observations of a group at once, in every step: two comparisons of arrays."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from .spaces import LeafCodec, SpaceCodec, part_of

ADVICE = "If it is right and the bounds are too narrow, widen them, or go on with check='warn' (--check warn)"

logger = logging.getLogger("shoal")


class ObservationGuard:
    """Whether observations lie in a space."""

    def __init__(self, codec: SpaceCodec, size: int, mode: str) -> None:
        """Guard observations [size, …] of a space; with mode "warn", the bounds of a Box count until they are left."""
        self._codec, self._size, self._mode = codec, size, mode
        self._set_bounds(True)

    def _set_bounds(self, bounds: bool) -> None:
        self._bounds = bounds
        self._leaves = [(parts, _limits(leaf, self._size, bounds)) for parts, leaf in self._codec.leaves()]
        simple = len(self._leaves) == 1 and not self._leaves[0][0]
        self.outside = self._leaves[0][1] if simple else self._outside
        """Returns the first row of observations [size, …] of which a part lies outside, or None."""

    def _outside(self, observations: np.ndarray) -> int | None:
        for parts, outside in self._leaves:
            row = outside(part_of(observations, parts))
            if row is not None:
                return row
        return None

    def refusal(self, observation: Any, where: str) -> str | None:
        """Return what is wrong with one observation; None if nothing is, or if the training may go on with it.

        Args:
            observation: what the environment returned.
            where: the environment and what returned it, for the line that says so in the latter case.
        """
        wrong = self._codec.problem(observation, bounds=self._bounds)
        if wrong is None:
            return None
        if self._codec.problem(observation, bounds=False) is not None:
            return wrong
        if self._mode == "error":
            return f"{wrong}. {ADVICE}"
        logger.warning("%s returned %s; the training goes on with it, and with others beyond the bounds", where, wrong)
        self._set_bounds(False)
        return None


def _limits(codec: LeafCodec, size: int, bounds: bool) -> Callable[[np.ndarray], int | None]:
    """What finds the first row of one part of the observations of a group that lies outside: a function, whose own
    variables are found sooner than attributes, and in each step."""
    shape = size, *codec.shape
    low, high = (np.ascontiguousarray(np.broadcast_to(bound, shape)) for bound in codec.limits(bounds=bounds))
    within = np.empty((2, *shape), np.bool_)
    above, below = within
    at_least, at_most, bits = np.greater_equal, np.less_equal, within.tobytes

    def outside(values: np.ndarray) -> int | None:
        at_least(values, low, above)
        at_most(values, high, below)
        # NaN is neither. Searching bytes takes a half of the time of `all` on arrays as small as these.
        return None if b"\0" not in bits() else int(np.argwhere(~(above & below))[0][0])

    if codec.dtype.kind in "iu":
        kind = np.iinfo(codec.dtype)
        if not ((low > kind.min).any() or (high < kind.max).any()):
            return lambda values: None  # of images of bytes, every value is one
    return outside
