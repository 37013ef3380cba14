"""Evolution strategies: algorithm 2 of Salimans et al., 2017 (arXiv 1703.03864), as the Ray paper runs it.

    for generation = 1, 2, …
        ε_1 … ε_n slices of the shared noise table
        play θ + σ ε_i and θ − σ ε_i                                                          (tasks)
        u ← centred ranks of all 2n returns
        g ← 1 / (2n σ) Σ (u_i⁺ − u_i⁻) ε_i                                        (a tree of tasks)
        θ ← θ + Adam(g − λ θ)

Each pair is antithetic: it shares its ε, so that what the even part of the returns adds to g cancels. There is no
learner: the driver sends 8 bytes for each direction, gets back its two returns, and makes one step.

Of several agents' policies each has ranks, gradient and Adam of its own, by the sum of its own agents' returns; one ε_i
moves all of them (see `rl.evolution.algorithm`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..rl import Clock, EvolutionAlgorithm, EvolutionConfig, Rate, number, rate_at

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, kw_only=True)
class ESConfig(EvolutionConfig):
    """Hyperparameters of evolution strategies, those of `EvolutionConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    n_delta: int = number(32, whole=True, at_least=1)
    """Directions per generation (n): for each, the policy is moved both ways along it."""
    delta_std: Rate = number(0.05, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """How far it is moved along them, each of whose numbers is standard normal (σ); a number, or lin_NUMBER to let it
    fall linearly to 0."""
    learning_rate: Rate = number(0.02, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    weight_decay: float = number(0.005, at_least=0)
    """How much of the weights is taken off the gradient (λ)."""


def centred_ranks(returns: np.ndarray) -> np.ndarray:
    """Ranks of all numbers in `returns`, of any shape, between −½ and ½: their sum is 0, equals share the mean of their
    ranks, and a single number has 0. Same shape, float64."""
    flat = returns.reshape(-1)
    values, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    shared = np.cumsum(counts) - (counts + 1) / 2  # mean of the ranks, from 0, of each value
    middle = (len(flat) - 1) / 2
    del values
    return ((shared - middle) / max(1, len(flat) - 1))[inverse].reshape(returns.shape)


def antithetic_coefficients(utilities: np.ndarray, delta_std: float) -> np.ndarray:
    """c [n] of the gradient's estimate Σ c_i ε_i, for `utilities` [n, 2] of θ + σε and θ − σε:
    (u⁺ − u⁻) / (2n σ), 2n being the number of policies (equation 1, mirrored)."""
    return (utilities[:, 0] - utilities[:, 1]) / (utilities.size * delta_std)


class ES(EvolutionAlgorithm[ESConfig]):
    """Evolution strategies on tasks. Arguments as in `Algorithm`, hyperparameters as in `ESConfig`."""

    name = "es"
    config_class = ESConfig
    presets_path: ClassVar[Path | None] = Path(__file__).parent / "presets" / "es.toml"

    @staticmethod
    def weigh(returns: np.ndarray, config: ESConfig, clock: Clock) -> np.ndarray:
        """By ranks, so that neither the scale of returns nor one that stands out decides the step."""
        return antithetic_coefficients(centred_ranks(returns), rate_at(config.delta_std, clock.remaining))

    @staticmethod
    def move(
        weights: np.ndarray, ascent: np.ndarray, memory: Mapping[str, Any], config: ESConfig, clock: Clock
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A step of Adam (Kingma & Ba, 2015, algorithm 1) up the gradient, in float64."""
        gradient = ascent - config.weight_decay * weights
        first, second = memory.get("first_moment", 0.0), memory.get("second_moment", 0.0)
        steps = int(memory.get("steps", 0)) + 1
        first = BETA1 * first + (1 - BETA1) * gradient
        second = BETA2 * second + (1 - BETA2) * np.square(gradient)
        mean, spread = first / (1 - BETA1**steps), np.sqrt(second / (1 - BETA2**steps))
        moved = weights + rate_at(config.learning_rate, clock.remaining) * mean / (spread + EPSILON)
        return moved.astype(np.float32), {"first_moment": first, "second_moment": second, "steps": steps}
