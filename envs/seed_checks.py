"""Whether the seed that `reset` gets decides anything."""

import pickle
import random
from typing import Any

import gymnasium
import numpy as np


def generator_states(env: gymnasium.Env) -> dict[str, bytes]:
    """Return the states of the generators that an environment holds as attributes, by name."""
    states = {}
    for name, value in vars(env.unwrapped).items():
        if isinstance(value, np.random.Generator | np.random.RandomState | random.Random):
            states[name] = pickle.dumps(value)
    return states


def own_seed(env: gymnasium.Env) -> Any:
    """Return what `np_random` was seeded with; None if it was not made or not by a seed."""
    seed = getattr(env.unwrapped, "_np_random_seed", None)
    return None if getattr(env.unwrapped, "_np_random", None) is None or seed == -1 else seed


def seed_problem(own_seeds: list[Any], same: bool, drawn: list[str]) -> str | None:
    """Return why the seed does not count, or None.

    Args:
        own_seeds: `own_seed` after reset(seed=123), again after reset(seed=123), and after reset(seed=124).
        same: whether an episode with seed 124 was the same as one with 123, under the same actions.
        drawn: generators that were in the same state after both resets, and that the episodes drew from.
    """
    first, again, other = own_seeds
    if None not in own_seeds and first != again:
        return (
            f"reset(seed=123) called twice seeds np_random with {first} and then with {again}: call "
            "super().reset(seed=seed) with the seed that it got"
        )
    if None not in own_seeds and first == other:
        return (
            f"reset() ignores its seed: reset(seed=123) and reset(seed=124) both seed np_random with {first}: call "
            "super().reset(seed=seed)"
        )
    if same and drawn:
        return (
            f"reset() ignores its seed: it draws random numbers ({', '.join(drawn)}), but episodes with the seeds 123 "
            "and 124 are the same. Call super().reset(seed=seed) and draw from self.np_random"
        )
    return None
