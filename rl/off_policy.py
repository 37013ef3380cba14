"""What off-policy algorithms share: short rollouts into a replay buffer that must fit into memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Generic

import psutil

from ..runtime import InputError
from .algorithm import Algorithm, Config
from .data.columns import action_columns, observation_columns
from .data.replay import replay_nbytes, transition_columns

logger = logging.getLogger("shoal")
_SHARE = 0.8
"""Of the machine's memory that a replay buffer may take."""


class OffPolicyAlgorithm(Algorithm[Config], Generic[Config]):
    """Rollouts of `config.train_freq` steps per environment; a replay buffer of `config.buffer_size` transitions, drawn
    by priority where `config.prioritized_replay` says so."""

    @staticmethod
    def rollout_steps(config: Any) -> int:
        """Steps per environment between two updates."""
        return int(config.train_freq)

    def check_spaces(self) -> None:
        """Raise InputError, with the arithmetic, if the replay buffer cannot fit into memory."""
        spec, config = self.model_spec, self.config
        columns = transition_columns(observation_columns(spec.observation_space), action_columns(spec.action_space))
        capacity = config.buffer_size  # type: ignore[attr-defined]
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
