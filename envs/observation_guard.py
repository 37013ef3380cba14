"""The check of all observations of a group at once, in every step: two comparisons of arrays."""

import logging
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
        self._leaves = [(parts, _Limits(leaf, self._size, bounds)) for parts, leaf in self._codec.leaves()]
        simple = len(self._leaves) == 1 and not self._leaves[0][0]
        self.outside = self._leaves[0][1].outside if simple else self._outside
        """Returns the first row of observations [size, …] of which a part lies outside, or None."""

    def _outside(self, observations: np.ndarray) -> int | None:
        for parts, limits in self._leaves:
            row = limits.outside(part_of(observations, parts))
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


class _Limits:
    """Of one part of the observations of a group."""

    def __init__(self, codec: LeafCodec, size: int, bounds: bool) -> None:
        shape = size, *codec.shape
        low, high = codec.limits(bounds=bounds)
        self._low, self._high = (np.ascontiguousarray(np.broadcast_to(bound, shape)) for bound in (low, high))
        self._within = np.empty((2, *shape), np.bool_)
        self._above, self._below = self._within
        self._bounded = True
        if codec.dtype.kind in "iu":  # of images of bytes, every value is one
            kind = np.iinfo(codec.dtype)
            self._bounded = bool((low > kind.min).any() or (high < kind.max).any())

    def outside(self, values: np.ndarray) -> int | None:
        if not self._bounded:
            return None
        np.greater_equal(values, self._low, self._above)
        np.less_equal(values, self._high, self._below)
        # NaN is neither. Searching bytes takes a half of the time of `all` on arrays as small as these.
        if b"\0" not in self._within.tobytes():
            return None
        return int(np.argwhere(~(self._above & self._below))[0][0])
