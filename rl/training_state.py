"""The state of a training between two iterations: references and counters, nothing else; and its form in a checkpoint.

It is replaced as a whole after each iteration. Whatever interrupts one (Ctrl-C, an exception in an environment), the
state is that of the last finished iteration: it can be saved, and training can go on from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..envs import Episode, GroupState, tree_from_arrays, tree_to_arrays
from ..runtime import ObjectRef, get, put
from .collect.worker import GroupProgress
from .learn.actor import LearnerInput

WINDOW = 100
"""Finished episodes that the mean return is taken over."""

Recent = tuple[tuple[float, int], ...]
"""Return and length of the last finished episodes, oldest first, at most `WINDOW` of them."""


@dataclass(frozen=True)
class Weights:
    """What acts."""

    version: int
    """Updates that they have seen."""
    ref: ObjectRef
    """Flat float32 array."""


@dataclass(frozen=True)
class LearnerLog:
    """What brings a learner back: its last snapshot, and what it learned from since."""

    iteration: int = 0
    """Iteration at whose start the snapshot was taken."""
    snapshot: ObjectRef | None = None
    """Its state then; None for the very beginning."""
    transitions: tuple[tuple[int, ObjectRef], ...] = ()
    """What the replay buffer then held, in pieces, oldest first: (transitions ever inserted up to its end, piece)."""
    inputs: tuple[LearnerInput, ...] = ()
    """Inputs of the updates since, one per iteration."""

    def after(self, given: LearnerInput) -> LearnerLog:
        """The log after one more update."""
        return replace(self, inputs=(*self.inputs, given))

    def at(
        self, iteration: int, snapshot: ObjectRef, piece: ObjectRef | None, *, inserted: int, forgotten: int
    ) -> LearnerLog:
        """The log after a snapshot at the start of `iteration`.

        `piece` is what the replay buffer took in since the last one; it has taken in `inserted` transitions ever, and
        has dropped the first `forgotten` of them.
        """
        kept = tuple((end, ref) for end, ref in self.transitions if end > forgotten)
        return LearnerLog(iteration, snapshot, kept if piece is None else (*kept, (inserted, piece)))


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Where a training stands. Arrays stay in the object store; the driver holds references."""

    iteration: int
    """Finished iterations."""
    timesteps: int
    """Environment steps done, over all environments."""
    weights: Weights
    """Those that act next."""
    groups: tuple[GroupProgress, ...]
    """Each simulation group."""
    learner: LearnerLog
    """What brings the learner back."""
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


def state_to_arrays(state: TrainingState, learner: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All of `state` but the weights, as a JSON-able document and named arrays; `learner` is the learner's own state
    at that iteration (see `LearnerActor.snapshot`)."""
    arrays: dict[str, np.ndarray] = {}
    kept = {name: value for name, value in learner.items() if name != "replay"}
    learner_tree = tree_to_arrays(kept, "learner", arrays)
    groups: list[dict[str, Any]] = []
    for index, group in enumerate(state.groups):
        description: dict[str, Any] | None = None
        if group.ref is not None:
            group_arrays, description = get(group.ref).to_arrays()
            arrays |= {f"groups.{index}.{name}": array for name, array in group_arrays.items()}
        groups.append({"rollouts": group.rollouts, "state": description})
    document = {
        "iteration": state.iteration,
        "timesteps": state.timesteps,
        "version": state.weights.version,
        "learner": learner_tree,
        "groups": groups,
        "recent": [list(episode) for episode in state.recent],
    }
    return document, arrays


def state_from_arrays(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], weights: np.ndarray
) -> TrainingState:
    """The state that `state_to_arrays` described, with its arrays put into the object store."""
    groups = []
    for index, entry in enumerate(document["groups"]):
        prefix = f"groups.{index}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        description = entry["state"]
        ref = None if description is None else put(GroupState.from_arrays(own, description))
        groups.append(GroupProgress(entry["rollouts"], ref))
    learner = tree_from_arrays(document["learner"], dict(arrays)) | {"replay": None}
    return TrainingState(
        iteration=document["iteration"],
        timesteps=document["timesteps"],
        weights=Weights(document["version"], put(weights)),
        groups=tuple(groups),
        learner=LearnerLog(document["iteration"], put(learner)),
        recent=tuple((float(return_), int(length)) for return_, length in document["recent"]),
    )
