"""The learner of one training, as the driver sees it: what it is asked, and how it is brought back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import runtime
from ..runtime import InputError, ObjectRef, exceptions, get
from .chaos import Deaths
from .learn.log import LearnerInput, LearnerLog, Piece
from .learn.lost import StateLostError
from .learner_settings import LearnerSettings
from .models.layout import ParameterLayout
from .run import RECOVERABLE, RETRIES, give_up
from .training_state import TrainingState, Weights

SNAPSHOT_STEPS = 1024
"""Environment steps between two snapshots of the learner, at least; what came since is learned again if it is lost.

A snapshot costs a copy of all its state: next to nothing beside a rollout of 2 048 steps, more than the update itself
where there is one for each step.
"""


@dataclass(frozen=True)
class Update:
    """An update that was asked for, from `state`; references to what it will give."""

    state: TrainingState
    given: LearnerInput
    due: bool
    """Whether a snapshot was asked for."""
    led_to: tuple[ObjectRef, ...] = ()
    """Weights, snapshot, transitions and metrics, where it was asked of one learner."""
    ends: tuple[ObjectRef, ...] = ()
    """The first of these that is there says that the update is done, or has failed."""

    @property
    def metrics(self) -> ObjectRef:
        """What one learner tells last."""
        return self.led_to[-1]


class LearnerHandle:
    """The learner; it restarts if its process dies, and is then brought back to where it was.

    `kind` is the actor class, with the methods of `LearnerActor` (in a group what makes one); `arguments` are its own,
    and `deaths` on purpose are told those that are planned.
    """

    def __init__(
        self, kind: Callable[..., Any], arguments: Sequence[Any], run: LearnerSettings, deaths: Deaths | None = None
    ) -> None:
        self._deaths = Deaths() if deaths is None else deaths
        made = runtime.remote(kind).options(num_gpus=gpus_of_each(run, 1), **RECOVERABLE)
        self.actor = made.remote(*arguments)
        self._updating: Update | None = None

    @cached_property
    def description(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """Initial weights (if nothing was learned yet), layout and device. Raises InputError for a device that is not
        there."""
        try:
            return get(self.actor.describe.remote())
        except exceptions.ActorDiedError as error:
            raise_refusal(error)
            raise

    def start(self, state: TrainingState, given: LearnerInput, snapshot: bool) -> Update:
        """Let it learn from rollouts, which need not be there yet, and perhaps take a snapshot of itself then."""
        self._updating = self._ask(Update(state, given, snapshot))
        return self._updating

    def _ask(self, update: Update) -> Update:
        given, state = update.given, update.state
        cycle, cycles = state.cycles
        death = self._deaths.of_learner(state.iteration, call=cycle, calls=cycles)
        asked = self.actor.update.remote(given.rollouts, state.version, given.clock, update.due, **death)
        return replace(update, led_to=tuple(asked), ends=(asked[-1],))

    def finish(self, update: Update) -> tuple[Weights, LearnerLog, dict[str, float]]:
        """Wait for an update: the next weights, the log with it, and metrics. Raises what the update raised."""
        update, metrics = self.wait(update)
        return following(update, update.led_to[:3], metrics)

    def wait(self, update: Update) -> tuple[Update, dict[str, float]]:
        """Wait for an update; returns it as it was asked for last, and metrics. Raises what the update raised."""
        state = update.state
        for _ in range(RETRIES):
            try:
                metrics = get(update.metrics)
                break
            except StateLostError:
                self._restore(state.learner)
                update = self._updating = self._ask(update)
        else:
            raise lost(state)
        self._updating = None
        return update, metrics

    def ask(self, state: TrainingState, method: str) -> Any:
        """What a method of the learner gives, called where `state` stands."""
        for _ in range(RETRIES):
            try:
                return get(getattr(self.actor, method).remote(state.version))
            except StateLostError:
                self._restore(state.learner)
        raise lost(state)

    def snapshot(self, state: TrainingState) -> tuple[dict[str, Any], tuple[Piece, ...]]:
        """The learner's own state where `state` stands, and the transitions that its replay buffer holds there."""
        for _ in range(RETRIES):
            taken, new = self.actor.snapshot.remote(state.version, state.learner.inserted)
            try:
                own = get(taken)
                break
            except StateLostError:
                self._restore(state.learner)
        else:
            raise lost(state)
        return own, log_of(state, own, taken, new).transitions

    def close(self) -> None:
        """End it. An update that failed since its rollouts were given up is read."""
        if self._updating is not None:
            give_up([self._updating.metrics], 0.2)
        runtime.kill(self.actor)

    def _restore(self, log: LearnerLog) -> None:
        get(self.actor.restore.remote(log))


def gpus_of_each(run: LearnerSettings, learners: int) -> int:
    """GPUs of each of so many learners, by which the runtime shows it that one alone. InputError if there are not
    enough, or all would compute on one."""
    there = int(runtime.cluster_resources().get("GPU", 0))
    if run.device.startswith("cuda:"):  # one that the runtime does not choose: it must not hide it
        if run.most_learners > 1:
            raise InputError(
                f"device is {run.device!r}, but learners is {run.learners!r}, and each takes a GPU of its own: choose "
                "device 'cuda', and by CUDA_VISIBLE_DEVICES which ones there are"
            )
        return 0
    if run.device == "cpu" or (not there and (run.device == "auto" or run.most_learners == 1)):
        return 0
    if there < learners:
        raise InputError(
            f"learners is {run.learners!r}, but there are {there} GPUs, of which each learner takes one: choose fewer "
            "learners, or device 'cpu'"
        )
    return 1


def raise_refusal(death: Exception) -> None:
    """Raise the InputError of a learner that has died of one: it refused a setting, which is told as all others are."""
    if isinstance(death.__cause__, InputError):
        raise death.__cause__ from None


def snapshot_is_due(log: LearnerLog, timesteps: int) -> bool:
    """Whether an update on so many environment steps is to give a snapshot."""
    return timesteps * (len(log.inputs) + 1) >= SNAPSHOT_STEPS


def following(
    update: Update, led_to: Sequence[ObjectRef], metrics: dict[str, float], updates: int = 1
) -> tuple[Weights, LearnerLog, dict[str, float]]:
    """What `finish` returns of an update, or of several at once, that led to weights, snapshot and transitions."""
    state = update.state
    flat, snapshot, transitions = led_to
    weights = Weights(state.version + updates, flat)
    if not update.due:
        return weights, state.learner.after(update.given), metrics
    inserted, size = int(metrics.get("replay/inserted", 0)), int(metrics.get("replay/size", 0))
    log = state.learner.at(weights.version, snapshot, transitions, inserted=inserted, size=size)
    return weights, log, metrics


def log_of(state: TrainingState, own: Mapping[str, Any], taken: ObjectRef, new: ObjectRef) -> LearnerLog:
    """The log with a snapshot that was `taken` where `state` stands: its value `own`, and the `new` transitions."""
    replay = own["replay"] or {"inserted": 0, "size": 0}
    return state.learner.at(state.version, taken, new, inserted=replay["inserted"], size=replay["size"])


def lost(state: TrainingState) -> exceptions.ActorUnavailableError:
    """The error for a learner that cannot be brought back."""
    return exceptions.ActorUnavailableError(
        f"the learner lost its state {RETRIES} times in iteration {state.iteration + 1}: its process died each "
        "time. Is there enough memory?"
    )
