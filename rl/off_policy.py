"""What off-policy algorithms share: short rollouts into a replay buffer that must fit into memory, and minibatches of
it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psutil

from ..runtime import InputError
from .algorithm import Algorithm
from .clock import Clock
from .data.columns import replay_columns
from .data.replay import replay_nbytes
from .data.rollout import Rollout
from .lazy import torch
from .learn.learner import Learner
from .schedules import Rate, rate_at
from .settings import number, one_per_environment, validate

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("shoal")
_SHARE = 0.8
"""Of the machine's memory that a replay buffer may take."""


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Hyperparameters of all that learn from a replay memory, with Stable-Baselines3's names and defaults.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(3e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    buffer_size: int = number(1_000_000, whole=True, at_least=1)
    """Transitions that the replay memory holds, over all environments."""
    learning_starts: int = number(100, whole=True, at_least=0)
    """Environment steps, over all environments, before the first update."""
    batch_size: int = number(256, whole=True, at_least=1)
    """Transitions per minibatch."""
    gamma: float = number(0.99, at_least=0, at_most=1)
    """Discount per step."""
    train_freq: int = number(1, whole=True, at_least=1)
    """Steps per environment between two updates."""
    gradient_steps: int = number(one_per_environment(), whole=True, at_least=1)
    """Minibatches per update; one for each environment by default."""
    n_step: int = number(1, whole=True, at_least=1)
    """Rewards summed before the target bootstraps."""

    def __post_init__(self) -> None:
        validate(self)


Replaying = TypeVar("Replaying", bound=ReplayConfig)


class OffPolicyAlgorithm(Algorithm[Replaying], Generic[Replaying]):
    """Rollouts of `config.train_freq` steps per environment; a replay buffer of `config.buffer_size` transitions, drawn
    by priority where `config.prioritized_replay` says so."""

    @staticmethod
    def rollout_steps(config: Any) -> int:
        """Steps per environment between two updates."""
        return int(config.train_freq)

    def check_spaces(self) -> None:
        """Raise InputError, with the arithmetic, if the replay buffer cannot fit into memory."""
        spec, config = self.model_spec, self.config
        columns, capacity = replay_columns(spec.observation_space, spec.action_space), config.buffer_size
        needed = replay_nbytes(columns, capacity, prioritized=getattr(config, "prioritized_replay", False))
        there = psutil.virtual_memory().total
        if needed > _SHARE * there:
            fits = int(capacity * _SHARE * there / needed)
            raise InputError(
                f"buffer_size is {capacity:,}: at {needed / capacity:,.0f} bytes a transition the replay buffer takes "
                f"{needed / 2**30:.1f} GiB, but may take {_SHARE:.0%} of this machine's {there / 2**30:.1f} GiB. "
                f"At most {fits:,} fit"
            )

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Any:
        """As `Algorithm.load`, but the replay buffer is not in a checkpoint: it fills again, which is logged."""
        loaded = super().load(folder, **options)
        if loaded.timesteps:
            logger.warning(
                "the checkpoint does not hold the replay buffer: it fills again, and no update is made before it holds "
                "learning_starts = %d transitions",
                loaded.config.learning_starts,
            )
        return loaded


def learn_from_replay(
    learner: Learner,
    rollout: Rollout,
    config: Replaying,
    clock: Clock,
    descend: Callable[[Learner, Replaying, float], dict[str, Tensor]],
) -> dict[str, float]:
    """Store a rollout, then descend on `config.gradient_steps` minibatches, once there is enough to draw from.

    `descend` makes one step with the learning rate that it is given, on a minibatch that it draws, counts it in
    `learner.n_updates` and returns metrics, each a scalar. Returns their means over the steps that had them, under
    Stable-Baselines3's tags; nothing where no step was made.
    """
    learner.replay.insert(rollout)
    if not learner.can_sample(clock.after(rollout.steps.rows), config.learning_starts):
        return {}
    rate = rate_at(config.learning_rate, clock.remaining)
    history: dict[str, list[Tensor]] = {}
    for _ in range(config.gradient_steps):
        for name, value in descend(learner, config, rate).items():
            history.setdefault(name, []).append(value)
    means = {name: float(torch.stack(values).mean()) for name, values in history.items()}
    return means | {"train/learning_rate": rate, "train/n_updates": learner.n_updates}
