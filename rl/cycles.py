"""Cycles: where rollouts are short, one iteration makes many of them, each with an update after it.

    cycle       every simulation group acts for some steps under the weights of now; then the learner updates them
    iteration   cycles until they make `ITERATION_STEPS` environment steps, or the training's last: what is told,
                hashed, saved and compared as one

How many cycles an iteration has follows from settings and clock, never from who runs them: workers and learner that the
driver asks in turn, or one actor that is both (`colocated`).

This module doesn't import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from .clock import Clock
from .collect.rollout_stats import RolloutStats
from .hashes import of_all
from .statistics import mean_returns
from .training_state import IterationOutcome

ITERATION_STEPS = 256
"""Environment steps of an iteration, at least. What belongs to one (a line of each file, a snapshot of the learner, the
states of groups) takes 2 to 5 ms, so with it a step costs 10 to 20 µs more than without."""


def cycles_of(steps: int, clock: Clock) -> int:
    """Cycles, of so many environment steps each, in the iteration that begins there."""
    return max(1, math.ceil(min(ITERATION_STEPS, clock.total_timesteps - clock.timesteps) / steps))


def metrics_of(cycles: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One iteration's metrics from those of its cycles: times and deaths are summed, what was measured in training is
    averaged over the cycles that have it, and of all else, such as counters, the last value counts."""
    if len(cycles) == 1:
        return dict(cycles[0])
    values: dict[str, list[float]] = {}
    for metrics in cycles:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)
    return {name: _one(name, each) for name, each in values.items()}


def _one(name: str, values: Sequence[float]) -> float:
    if name.startswith(("time/", "chaos/")):
        return sum(values)
    if name.startswith("train/") and isinstance(values[-1], float):
        return math.fsum(values) / len(values)
    return values[-1]


def stats_of_cycles(cycles: Sequence[RolloutStats]) -> RolloutStats:
    """What the rollouts of an iteration tell, from those of its cycles."""
    if len(cycles) == 1:
        return cycles[0]
    metrics = metrics_of([cycle.metrics for cycle in cycles])
    return RolloutStats(
        [episode for cycle in cycles for episode in cycle.episodes],
        environment_seconds=metrics["time/environment_seconds"],
        inference_seconds=metrics["time/inference_seconds"],
        restore_seconds=metrics["time/restore_seconds"],
        digests=of_all(cycle.digests for cycle in cycles),
        metrics=metrics,
    )


def one_iteration(outcomes: Iterator[IterationOutcome], iteration: int) -> IterationOutcome:
    """What the cycles of an iteration lead to together; `iteration` are those before it."""
    each = list(outcomes)
    episodes = [episode for outcome in each for episode in outcome.episodes]
    of_agents = {f"agents/{agent}/ep_rew_mean": value for agent, value in mean_returns(episodes).items()}
    return replace(
        each[-1],
        state=replace(each[-1].state, iteration=iteration + 1),
        episodes=episodes,
        metrics=metrics_of([outcome.metrics for outcome in each]) | of_agents,
        digests=of_all(outcome.digests for outcome in each),
        examples=tuple(example for outcome in each for example in outcome.examples),
    )
