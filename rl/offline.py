"""What offline algorithms share: no rollout workers; the learner reads minibatches of a dataset.

    for iteration = 1, 2, …
        gradient_steps times: draw a minibatch of the dataset, descend                       (learner)

What a training is made of is the dataset alone; an environment is made only to check its spaces, where the user names
it, and to evaluate in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..envs import Inspection
from ..runtime import InputError
from .actors import LearnerRun
from .clock import Clock
from .data.dataset import Dataset
from .dataset_training import DatasetAlgorithm, steps_of
from .learn.learner import Learner
from .off_policy import take_gradient_steps
from .runs.saved_training import SavedTraining
from .schedules import Rate
from .settings import Hyperparameters, number
from .training_state import IterationOutcome, TrainingState

TRANSITIONS = ("observations", "actions", "rewards", "next_observations", "discounts")
"""Columns that algorithms which bootstrap draw of a dataset."""


@dataclass(frozen=True, kw_only=True)
class OfflineConfig(Hyperparameters):
    """Hyperparameters of all that learn from a dataset.

    Raises:
        InputError: a value that cannot work.
    """

    dataset: str = ""
    """Minari dataset to learn from: its id, looked for below MINARI_DATASETS_PATH, or its folder; several with the same
    spaces, separated by commas, count as one."""
    learning_rate: Rate = number(3e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    batch_size: int = number(256, whole=True, at_least=1)
    """Transitions per minibatch."""
    gamma: float = number(0.99, at_least=0, at_most=1)
    """Discount per step."""
    gradient_steps: int = number(500, whole=True, at_least=1)
    """Minibatches per iteration; a timestep is one minibatch."""
    buffer_size: int = number(1_000_000, whole=True, at_least=1)
    """Transitions of the dataset that lie in memory at a time: a larger one is read in blocks of whole episodes, in
    another order in each pass."""


Config = TypeVar("Config", bound=OfflineConfig)


class OfflineAlgorithm(DatasetAlgorithm[Config], Generic[Config]):
    """Trains from `dataset`, a Minari id or a folder.

    `env` may be left out: it is the dataset's own then, and is made only where it is evaluated. Further arguments as in
    `Algorithm`; those of rollout workers have no effect.

    Raises InputError if there is no such dataset, SpaceMismatchError, naming both, if the spaces of `env` are others.
    """

    reads_dataset = True

    def __init__(self, env: Any = None, *, dataset: str | Path = "", **settings: Any) -> None:
        self.dataset = Dataset(dataset)
        self._env_is_given = env is not None
        super().__init__(self.dataset.environment() if env is None else env, dataset=self.dataset.name, **settings)

    def facts(self) -> dict[str, Any]:
        """As `Dataset.summary`."""
        return self.dataset.summary()

    def check(self) -> None:
        """Raise InputError if rewards shall be normalized: their statistics are those of rollouts."""
        self.require(
            not self.run.normalizes_rewards, "normalize", self.run.normalize, "obs or none with an offline algorithm"
        )

    def _inspect(self) -> Inspection:
        """The dataset's spaces; where an environment is to be made, it must have the same."""
        own = self.dataset
        if not self._env_is_given and self.run.eval_freq is None:
            return Inspection(self.spec, own.observation_space, own.action_space, ())
        found = super()._inspect()
        own.check_fits(f"environment {self.spec.id!r}", found.observation_space, found.action_space)
        return found

    @classmethod
    def saved_environment(cls, saved: SavedTraining, env: Any) -> Any:
        """The environment of the training; where it cannot be found, what the dataset says of it."""
        try:
            return saved.spec(env)
        except InputError:
            if env is not None:
                raise
            return None

    def make_run(self) -> LearnerRun:
        """A learner."""
        return LearnerRun(**self.run_options())

    def training_step(self, run: LearnerRun, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration: `gradient_steps` minibatches, or the training's last."""
        return run.learn_alone(state, steps_of(self.config, clock), clock)


def read_dataset(learner: Learner, config: OfflineConfig) -> None:
    """Let a new learner draw from the dataset of the settings: first of all, since normalization follows from it."""
    learner.add_dataset(config.dataset, capacity=config.buffer_size, rows=config.batch_size, gamma=config.gamma)


def take_dataset_steps(
    learner: Learner, config: Any, clock: Clock, descend: Callable[[Learner, Any, float], dict[str, Any]]
) -> dict[str, float]:
    """As `take_gradient_steps`, for the steps of an iteration over a dataset."""
    return take_gradient_steps(learner, config, clock, descend, steps_of(config, clock))
