"""Augmented random search: algorithm 2 of Mania, Guy & Recht, 2018 (arXiv 1803.07055).

    for iteration = 1, 2, …
        δ_1 … δ_n slices of the shared noise table
        play θ + ν δ_i and θ − ν δ_i                                                          (tasks)
        sort the directions by max(r_i⁺, r_i⁻), keep the best b
        θ ← θ + α / (b σ_R) Σ (r_i⁺ − r_i⁻) δ_i,   σ_R the deviation of the 2b returns that are used

V1 is this; V2 takes from observations their mean, and divides by their deviation, of all states seen: --normalize obs.
With b < n they are V1-t and V2-t. The policy is linear, and 0 at first. Names and defaults are sb3-contrib's; delta_std
is ν.

Of several agents' policies each is sorted and moved by the sum of its own agents' returns; one δ_i moves all of them
(see `rl.evolution.algorithm`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..rl import Clock, EvolutionAlgorithm, EvolutionConfig, number, rate_at


@dataclass(frozen=True, kw_only=True)
class ARSConfig(EvolutionConfig):
    """Hyperparameters of augmented random search, those of `EvolutionConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    n_top: int | None = number(None, whole=True, at_least=1, optional=True)
    """Directions that are used (b): those with the highest return of either policy. Default: all."""
    zero_policy: bool = True
    """Whether all weights are 0 at first. With hidden layers give false: from 0 only the last bias would move."""
    alive_bonus_offset: float = number(0.0)
    """Added to the reward of each step where policies are compared: −1 takes off what MuJoCo's walkers get for not
    falling, for which standing still is the best."""


def used_directions(returns: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` directions with the highest max(r⁺, r⁻) of `returns` [n, 2], best first; of equals the
    earlier ones."""
    return np.argsort(-returns.max(-1), kind="stable")[:count]


def search_coefficients(returns: np.ndarray, count: int) -> np.ndarray:
    """c [n] of the step Σ c_i δ_i for a step size of 1: (r⁺ − r⁻) / (b σ_R) for the b = `count` directions that are
    used, 0 for the others; all 0 where the used returns are equal, since nothing tells one way from the other."""
    used = used_directions(returns, count)
    coefficients, deviation = np.zeros(len(returns)), returns[used].std()
    if deviation > 0:
        coefficients[used] = (returns[used, 0] - returns[used, 1]) / (count * deviation)
    return coefficients


class ARS(EvolutionAlgorithm[ARSConfig]):
    """Augmented random search on tasks. Arguments as in `Algorithm`, hyperparameters as in `ARSConfig`."""

    name = "ars"
    config_class = ARSConfig
    presets_path: ClassVar[Path | None] = Path(__file__).parent / "presets" / "ars.toml"

    def check(self) -> None:
        """Also the number of directions that are used."""
        super().check()
        top, directions = self.config.n_top, self.config.n_delta
        self.require(top is None or top <= directions, "n_top", top, f"at most n_delta, {directions}")

    @staticmethod
    def model_options(config: ARSConfig) -> dict[str, Any]:
        """No hidden layer."""
        return {"net_arch": []}

    @staticmethod
    def begin(weights: np.ndarray, config: ARSConfig) -> np.ndarray:
        """Nothing but zeros, where `zero_policy` says so."""
        return np.zeros_like(weights) if config.zero_policy else weights

    @staticmethod
    def fitness(returns: np.ndarray, lengths: np.ndarray, config: ARSConfig) -> np.ndarray:
        """Mean of the episodes, each step's reward moved by `alive_bonus_offset`."""
        return (returns + config.alive_bonus_offset * lengths).mean(-1)

    @staticmethod
    def weigh(returns: np.ndarray, config: ARSConfig, clock: Clock) -> np.ndarray:
        """By returns, in units of their deviation."""
        return search_coefficients(returns, config.n_top or config.n_delta)

    @staticmethod
    def move(
        weights: np.ndarray, ascent: np.ndarray, memory: Mapping[str, Any], config: ARSConfig, clock: Clock
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The step. Divided by σ_R it gets no shorter towards the optimum: a falling `learning_rate` makes it so."""
        return (weights + rate_at(config.learning_rate, clock.remaining) * ascent).astype(np.float32), {}
