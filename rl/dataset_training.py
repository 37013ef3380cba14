"""What learns from a dataset alone has in common, be it of episodes or of texts: no rollouts.

A timestep is a gradient step here (so the last iteration takes those that are left): schedules, `total_timesteps`,
`eval_freq` and the names of checkpoints count these, as the field does. An environment is made only where the user
names one, or to evaluate in.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, Never

from ..runtime import InputError
from .algorithm import Algorithm, Config
from .callbacks import TrainingResult
from .clock import Clock
from .declaration import Learning


def steps_of(config: Any, clock: Clock) -> int:
    """Gradient steps of the iteration that begins there: `config.gradient_steps`, or what is left of the training."""
    return max(1, min(config.gradient_steps, clock.total_timesteps - clock.timesteps))


class DatasetAlgorithm(Algorithm[Config], Learning, Generic[Config]):
    """Trains from a `dataset`. `env` may be left out; arguments of rollout workers have no effect."""

    takes_memory: ClassVar[bool] = False
    needs_environment: ClassVar[bool] = False
    trains_agents: ClassVar[bool] = False

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What tells the dataset from others, JSON-able: its `name`, sizes, and a `sha256`."""

    def train(
        self, total_timesteps: int, *, stop_return: float | None = None, callbacks: Any = None, **unknown: Never
    ) -> TrainingResult:
        """As `Algorithm.train`, for `total_timesteps` gradient steps; InputError for `stop_return`, since no episode
        ends in training."""
        if stop_return is not None:
            raise InputError(
                f"stop_return is {stop_return!r}, but {self.name} plays no episodes while it trains: evaluate beside "
                "it with eval_freq, and stop with eval_stop_return"
            )
        return super().train(total_timesteps, callbacks=callbacks, **unknown)

    @property
    def reward_threshold(self) -> None:
        """None: whether the task is solved is seen in evaluations."""
        return

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Any:
        """As `Algorithm.load`; InputError if the dataset has changed since."""
        loaded = super().load(folder, **options)
        before, now = dict(loaded._saved.document["dataset"]), loaded.facts()
        if before.pop("sha256") != now.pop("sha256"):
            was, is_now = (", ".join(f"{name} {value!r}" for name, value in facts.items()) for facts in (before, now))
            raise InputError(f"the training was made with another dataset ({was}) than there is now ({is_now})")
        return loaded

    def settings(self) -> dict[str, Any]:
        """As `Algorithm.settings`, and what tells the `dataset` from others."""
        return super().settings() | {"dataset": self.facts()}
