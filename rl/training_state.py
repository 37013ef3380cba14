"""The state of a training between two iterations: references and counters, nothing else; and its form in a checkpoint.

It is replaced as a whole after each iteration. Whatever interrupts one (Ctrl-C, an exception in an environment), the
state is that of the last finished iteration: it can be saved, and training can go on from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..envs import Episode, GroupState
from ..runtime import ObjectRef, get, put

WINDOW = 100
"""Finished episodes that the mean return is taken over."""

Recent = tuple[tuple[float, int], ...]
"""Return and length of the last finished episodes, oldest first, at most `WINDOW` of them."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Where a training stands. Arrays stay in the object store; the driver holds references."""

    iteration: int
    """Finished iterations; also the version of the weights."""
    timesteps: int
    """Environment steps done, over all environments."""
    weights: ObjectRef
    """Flat float32 weights."""
    optimizer: ObjectRef
    """Optimizer state: dict with `moments` [2, size] float32, `steps`, `epochs`."""
    groups: tuple[ObjectRef | None, ...]
    """State of each simulation group; None before its first rollout."""
    recent: Recent
    """Return and length of the last 100 finished episodes, oldest first."""

    @property
    def episode_return_mean(self) -> float | None:
        """Mean return of the recent episodes; None if there are none."""
        return _mean_return(self.recent)

    @property
    def episode_length_mean(self) -> float | None:
        """Mean length of the recent episodes; None if there are none."""
        return float(np.mean([length for _, length in self.recent])) if self.recent else None


def _mean_return(recent: Recent) -> float | None:
    return float(np.mean([return_ for return_, _ in recent])) if recent else None


def has_reached(recent: Recent, threshold: float | None) -> bool:
    """Whether the mean return of the last 100 episodes (there must be as many) is at least `threshold`."""
    mean = _mean_return(recent)
    return threshold is not None and mean is not None and len(recent) >= WINDOW and mean >= threshold


@dataclass(frozen=True, kw_only=True)
class IterationOutcome:
    """What one iteration leads to."""

    state: TrainingState
    """The state after it."""
    episodes: list[Episode]
    """Episodes that finished in it, ordered by end step, then environment index."""
    metrics: dict[str, float]
    """Values under Stable-Baselines3's tags."""


def extend_window(recent: Sequence[tuple[float, int]], episodes: Sequence[Episode]) -> Recent:
    """The last 100 of the recent episodes and the new ones."""
    new = [(float(episode.return_), int(episode.length)) for episode in episodes]
    return tuple([*recent, *new][-WINDOW:])


def state_to_arrays(state: TrainingState) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All of `state` but the weights, as a JSON-able document and named arrays."""
    optimizer = get(state.optimizer)
    arrays: dict[str, np.ndarray] = {"optimizer.moments": optimizer["moments"]}
    groups: list[dict[str, Any] | None] = []
    for index, ref in enumerate(state.groups):
        if ref is None:
            groups.append(None)
            continue
        group_arrays, description = get(ref).to_arrays()
        groups.append(description)
        arrays |= {f"groups.{index}.{name}": array for name, array in group_arrays.items()}
    document = {
        "iteration": state.iteration,
        "timesteps": state.timesteps,
        "optimizer": {"steps": optimizer["steps"], "epochs": optimizer["epochs"]},
        "groups": groups,
        "recent": [list(episode) for episode in state.recent],
    }
    return document, arrays


def state_from_arrays(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], weights: np.ndarray
) -> TrainingState:
    """The state that `state_to_arrays` described, with its arrays put into the object store."""
    groups: list[ObjectRef | None] = []
    for index, description in enumerate(document["groups"]):
        prefix = f"groups.{index}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        groups.append(None if description is None else put(GroupState.from_arrays(own, description)))
    return TrainingState(
        iteration=document["iteration"],
        timesteps=document["timesteps"],
        weights=put(weights),
        optimizer=put({"moments": arrays["optimizer.moments"], **document["optimizer"]}),
        groups=tuple(groups),
        recent=tuple((float(return_), int(length)) for return_, length in document["recent"]),
    )
