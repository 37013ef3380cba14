"""The state of a training between two iterations: references and counters, nothing else; and its form in a checkpoint.

It is replaced as a whole after each iteration. Whatever interrupts one (Ctrl-C, an exception in an environment), the
state is that of the last finished iteration: it can be saved, and training can go on from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..envs import Episode, GroupState, tree_from_arrays, tree_to_arrays
from ..runtime import ObjectRef, get, put
from .callbacks import EvaluationReport
from .collect.worker import GroupProgress
from .hashes import line_of, weights_are_due
from .league import League
from .learn.log import LearnerLog, Piece
from .models.layout import ParameterLayout

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
class PendingEvaluation:
    """An evaluation that has begun and was not told yet."""

    index: int
    """Names its random streams."""
    timesteps: int
    """Environment steps after which the weights stood so."""
    weights: Weights


@dataclass(frozen=True)
class EvaluationLog:
    """The evaluations of a training until now."""

    begun: int = 0
    pending: PendingEvaluation | None = None
    best_mean_return: float | None = None
    """Highest mean return; None before the first result."""
    since_best: int = 0
    """Results since."""
    best_weights: Weights | None = None
    """Those that had it; None before the first result, and after a resume until there are better ones."""

    def to_json(self) -> dict[str, Any]:
        """All but the weights."""
        pending = self.pending and {
            "index": self.pending.index,
            "timesteps": self.pending.timesteps,
            "version": self.pending.weights.version,
        }
        names = ("begun", "best_mean_return", "since_best")
        return {name: getattr(self, name) for name in names} | {"pending": pending}

    @staticmethod
    def from_json(entries: Mapping[str, Any], pending_weights: np.ndarray | None) -> EvaluationLog:
        """The inverse of `to_json`, with the weights of the pending evaluation."""
        known, pending = dict(entries), None
        if (entry := known.pop("pending")) is not None:
            weights = Weights(entry["version"], put(pending_weights))
            pending = PendingEvaluation(entry["index"], entry["timesteps"], weights)
        return EvaluationLog(**known, pending=pending)


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
    evaluations: EvaluationLog = EvaluationLog()
    """Evaluations of `eval_freq`."""
    league: League = field(default_factory=League)
    """Opponents of self-play; empty without it."""
    cycles: tuple[int, int] = (0, 1)
    """Where within an iteration this is: so many of its cycles are done, of so many (see `cycles`)."""

    @property
    def version(self) -> int:
        """Updates that were made: what the learner counts as its iterations."""
        return self.weights.version

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
    evaluation: EvaluationReport | None = None
    """The evaluation that is told after it, if one is."""
    schedule: Mapping[str, Any] | None = None
    """Of an asynchronous training: what the iteration learned from, as a line of `schedule.jsonl`."""
    digests: Mapping[str, bytes] = field(default_factory=dict)
    """Hashes of what it was made of, see `hashes`; empty where they are not wanted."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """These and that of the weights after it, as a line of `hashes.jsonl`."""
    examples: tuple[Mapping[str, Any], ...] = ()
    """Of a language model: some of what it was asked and said, as lines of `examples.jsonl`."""


def with_hashes(outcome: IterationOutcome, layout: ParameterLayout) -> IterationOutcome:
    """What an iteration leads to, with its line of `hashes.jsonl`; `layout` is that of the weights."""
    after = outcome.state
    due = weights_are_due(layout.size, after.iteration)
    weights = layout.sha256(get(after.weights.ref)) if due else None
    return replace(outcome, hashes=line_of(outcome.digests, weights))


def extend_window(recent: Sequence[tuple[float, int]], episodes: Sequence[Episode]) -> Recent:
    """The last 100 of the recent episodes and the new ones."""
    new = [(float(episode.return_), int(episode.length)) for episode in episodes]
    return tuple([*recent, *new][-WINDOW:])


def state_to_arrays(state: TrainingState, learner: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All of `state` but the weights and the replay buffer's transitions, as a JSON-able document and named arrays;
    `learner` is the learner's own state at that iteration (see `LearnerActor.snapshot`)."""
    arrays: dict[str, np.ndarray] = {}
    learner_tree = tree_to_arrays(learner, "learner", arrays)
    groups: list[dict[str, Any]] = []
    for index, group in enumerate(state.groups):
        description: dict[str, Any] | None = None
        if group.ref is not None:
            group_arrays, description = get(group.ref).to_arrays()
            arrays |= {f"groups.{index}.{name}": array for name, array in group_arrays.items()}
        groups.append({"rollouts": group.rollouts, "state": description})
    arrays, records = _records_as_bytes(arrays)
    document = {
        "records": records,
        "iteration": state.iteration,
        "timesteps": state.timesteps,
        "version": state.weights.version,
        "learner": learner_tree,
        "groups": groups,
        "recent": [list(episode) for episode in state.recent],
        "evaluations": state.evaluations.to_json(),
        "league": state.league.to_json(),
    }
    if state.evaluations.pending is not None:
        arrays["evaluations.weights"] = get(state.evaluations.pending.weights.ref)
    return document, arrays


def state_from_arrays(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], weights: np.ndarray, transitions: Iterable[Piece]
) -> TrainingState:
    """The state that `state_to_arrays` described, with its arrays put into the object store; `transitions` are what the
    replay buffer held."""
    arrays = {
        name: array.view(_record(document["records"][name]))[..., 0] if name in document["records"] else array
        for name, array in arrays.items()
    }
    groups = []
    for index, entry in enumerate(document["groups"]):
        prefix = f"groups.{index}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        description = entry["state"]
        ref = None if description is None else put(GroupState.from_arrays(own, description))
        groups.append(GroupProgress(entry["rollouts"], ref))
    learner = tree_from_arrays(document["learner"], dict(arrays))
    return TrainingState(
        iteration=document["iteration"],
        timesteps=document["timesteps"],
        weights=Weights(document["version"], put(weights)),
        groups=tuple(groups),
        learner=LearnerLog(document["version"], put(learner), tuple(transitions)),
        recent=tuple((float(return_), int(length)) for return_, length in document["recent"]),
        evaluations=EvaluationLog.from_json(document["evaluations"], arrays.get("evaluations.weights")),
    )


def _records_as_bytes(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of records, which no file of tensors holds, with their bytes as a further axis; and their dtypes."""
    records = {name: array for name, array in arrays.items() if array.dtype.names is not None}
    plain = {name: np.ascontiguousarray(array)[..., np.newaxis].view(np.uint8) for name, array in records.items()}
    return arrays | plain, {name: array.dtype.descr for name, array in records.items()}


def _record(parts: list[Any]) -> np.dtype:
    """The dtype of records, of which JSON makes lists: name, dtype or parts, and perhaps shape."""
    fields = [
        (name, _record(kind) if isinstance(kind, list) else kind, *map(tuple, shape)) for name, kind, *shape in parts
    ]
    return np.dtype(fields)
