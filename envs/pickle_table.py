"""What makes pickles of environments small and fast: how they hold spaces, and the seeds of generators.

A group's environments have a copy of each space, equal in all of them and at all times: four fifths of the time that
their pickle takes, and of an image's bounds nearly all of its bytes. So a space that holds nothing but its bounds is
pickled once, by what it holds, and a pickle of environments has that once, too. The seed of a generator is what it was
made of, from which numpy makes the rest again.
"""

import copyreg
import pickle
from collections.abc import Callable
from typing import Any

from gymnasium.spaces import Box, Discrete, Space
from numpy.random import SeedSequence

_MOST = 64
"""Pickles that are kept: somebody may make another space in each step."""
_ATTRIBUTES: dict[type, int] = {kind: len(vars(space)) for kind, space in ((Box, Box(0, 1)), (Discrete, Discrete(2)))}


class PickleTable:
    """How a group's environments are pickled.

    Attributes:
        reducers: a pickler's `dispatch_table`.
    """

    def __init__(self) -> None:
        self._known: dict[Any, bytes] = {}
        self.reducers: dict[type, Callable[[Any], Any]] = {
            **copyreg.dispatch_table,
            Box: self._reduced_box,
            Discrete: self._reduced_discrete,
            SeedSequence: _reduced_seeds,
        }

    def _reduced_box(self, space: Box) -> Any:
        return self._reduced(space, (space.shape, space.dtype, space.low.tobytes(), space.high.tobytes()))

    def _reduced_discrete(self, space: Discrete) -> Any:
        return self._reduced(space, (int(space.n), int(space.start), space.dtype))

    def _reduced(self, space: Space, bounds: tuple[Any, ...]) -> Any:
        # One that has drawn numbers has a generator, and somebody may have given it attributes of his own.
        if getattr(space, "_np_random", None) is not None or len(vars(space)) != _ATTRIBUTES[type(space)]:
            return space.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if bounds not in self._known:
            if len(self._known) == _MOST:
                self._known.clear()
            self._known[bounds] = pickle.dumps(space, pickle.HIGHEST_PROTOCOL)
        return pickle.loads, (self._known[bounds],)


def _reduced_seeds(seeds: SeedSequence) -> Any:
    return _seeds, (seeds.entropy, seeds.spawn_key, seeds.pool_size, seeds.n_children_spawned)


def _seeds(entropy: Any, spawn_key: Any, pool_size: int, children: int) -> SeedSequence:
    return SeedSequence(entropy, spawn_key=spawn_key, pool_size=pool_size, n_children_spawned=children)
