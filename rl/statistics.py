"""Statistics of a few runs: Agarwal et al., 2021, arXiv 2108.13264 (rliable's definitions). Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..envs import Episode


def interquartile_mean(scores: np.ndarray | Sequence[float]) -> float:
    """The mean of the middle half of all scores: a quarter of them, rounded down, is left out at each end.

    It is less moved by a run that failed than the mean, and less uncertain than the median. Raises ValueError for no
    scores.
    """
    ordered = np.sort(np.asarray(scores, np.float64).ravel())
    if not len(ordered):
        raise ValueError("scores is empty; want at least one")
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def bootstrap_interval(
    scores: np.ndarray | Sequence[float],
    statistic: Callable[[np.ndarray], float] = interquartile_mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Stratified bootstrap interval (percentiles) of a statistic of `scores` [runs] or [runs, tasks].

    Each resample draws as many runs as there are, with replacement, for each task apart. With few runs it is too
    narrow: of 5 runs, a 95 % interval holds the true value in clearly less than 95 of 100 cases. Raises ValueError for
    no scores.
    """
    table = np.asarray(scores, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if not table.size:
        raise ValueError("scores is empty; want at least one")
    runs, tasks = table.shape
    random = np.random.default_rng(seed)
    found = [
        statistic(np.take_along_axis(table, random.integers(runs, size=(runs, tasks)), axis=0))
        for _ in range(resamples)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def mean_returns(episodes: Sequence[Episode]) -> dict[str, float]:
    """The mean return of each agent over episodes; empty where there is but one agent, or no episode."""
    names = episodes[0].agents if episodes else ()
    return {name: float(np.mean([episode.agents[name] for episode in episodes])) for name in names}
