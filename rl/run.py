"""What one training runs on, as the driver sees it. Each kind of training has its own actors."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .. import runtime
from ..envs import EnvSpec
from ..runtime import ObjectRef, get
from .chaos import Chaos, Deaths
from .evaluation.evaluator import Evaluations
from .learn.log import LearnerLog, Piece
from .models.joint_spec import AnySpec
from .models.layout import ParameterLayout
from .settings import RunSettings
from .training_state import TrainingState, Weights

RETRIES = 10
"""How often a call is repeated whose process died: an environment that always crashes must not be tried for ever."""
# Training repeats calls, from state that it holds; with lineage it would keep all iterations' (DESIGN 2.7).
RECOVERABLE: dict[str, Any] = {"max_restarts": -1, "max_task_retries": RETRIES, "lineage": False}
CLOSE_SECONDS = 10.0
"""How long closing waits for the workers' environments; a worker in a step that does not return is ended then."""

logger = logging.getLogger("shoal")


def give_up(refs: Sequence[ObjectRef], seconds: float) -> None:
    """Wait for what was ended on purpose, and read it as soon as it is there, so that nobody is told of it."""
    deadline, left = time.monotonic() + seconds, list(refs)
    while left:
        there, left = runtime.wait(left, timeout=max(0.0, deadline - time.monotonic()))
        if not there:
            return
        try:
            get(there)
        except Exception as error:  # whatever it is of: nobody waits for it
            logger.debug("a call was given up: %s", error)


def note_on_deaths(error: BaseException, what: str, env_id: str) -> None:
    """Add to an error of processes that died again and again, in the same rollout or episodes (`what`), what is likely
    to be the reason, and how to see it."""
    error.add_note(
        f"A worker died {RETRIES + 1} times in the same {what} of environment {env_id!r}: the environment, or a "
        "library that it uses, seems to end its process. PYTHONFAULTHANDLER=1 in the program's environment prints "
        "where Python was at a crash; with engine='serial' (--engine serial) all is played in this one"
    )


class Run(ABC):
    """What a training step works with. Actors start when they are first used."""

    def __init__(
        self, *, algorithm: type[Any], config: Any, spec: EnvSpec, model_spec: AnySpec, settings: RunSettings
    ) -> None:
        self.config, self.settings = config, settings
        self._algorithm, self._spec, self._model_spec = algorithm, spec, model_spec
        self.deaths = Deaths(Chaos.read(settings.chaos))
        self._closed = False
        # Environments are closed also where nobody closes the training.
        runtime.close_before_shutdown(self)

    @cached_property
    def evaluations(self) -> Evaluations:
        """The evaluations of `eval_freq`."""
        return Evaluations(self._spec, self._model_spec, self.settings, RECOVERABLE, CLOSE_SECONDS)

    @property
    @abstractmethod
    def description(self) -> tuple[np.ndarray, ParameterLayout, str]:
        """Initial weights (if nothing was learned yet), layout, and the device that is learned on."""

    @abstractmethod
    def snapshot(self, state: TrainingState) -> tuple[dict[str, Any], tuple[Piece, ...]]:
        """What learns as it is where `state` stands: a tree of arrays and numbers, whose entry `replay` is None without
        a replay buffer; and the transitions that the buffer holds there."""

    @abstractmethod
    def end_actors(self) -> None:
        """End the actors that were started."""

    def initial_state(self) -> TrainingState:
        """The state before the first iteration."""
        return TrainingState(
            iteration=0,
            timesteps=0,
            weights=Weights(0, runtime.put(self.description[0])),
            groups=(),
            learner=LearnerLog(),
            recent=(),
        )

    def close(self) -> None:
        """End the actors that were started; a second call does nothing."""
        closed, self._closed = self._closed, True
        if runtime.is_initialized() and not closed:
            if "evaluations" in vars(self):  # what a cached property made
                self.evaluations.close()
            self.end_actors()
