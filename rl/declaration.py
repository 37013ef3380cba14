"""What an algorithm declares of itself. Nothing runs here: rollout workers and the learner ask it, by its class.

explore, finish     in rollout workers: how the model acts, and what is known only once a rollout is whole
prepare, update     in the learner: optimizers and targets; the next weights from what all groups did
check               in the driver, before anything is started
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .clock import Clock
from .data.tree import Tree

if TYPE_CHECKING:
    from torch import Tensor

    from .data.rollout import Rollout
    from .learn.learner import Learner
    from .models.spec import ModelSpec


@dataclass(frozen=True)
class Acted:
    """What `explore` chose for the rows of one step."""

    actions: Tensor
    """[B, …] as the model gives them, before `to_env_actions`."""
    records: Mapping[str, Tensor] = field(default_factory=dict)
    """[B, …] for columns of `records`."""


class Declaration(ABC):
    """One file per algorithm overrides this. All methods are static: they take what they need as arguments, so that
    what they give depends on nothing else."""

    name: ClassVar[str]
    """As in the command line: lower case."""
    config_class: ClassVar[type]
    """Frozen dataclass of the hyperparameters; its fields' docstrings are their help."""
    presets_path: ClassVar[Path | None] = None
    """TOML table of settings tuned per environment."""
    models: ClassVar[tuple[str, ...]] = ("actor_critic",)
    """Kinds of model, keys of `models.build.MODELS`: the first that takes the action space is used."""

    @staticmethod
    def model_options(config: Any) -> dict[str, Any]:
        """What hyperparameters decide of the network, as entries of `policy_kwargs`."""
        return {}

    @staticmethod
    def records(spec: ModelSpec) -> dict[str, Tree]:
        """Columns (trees of `Column`) that `explore` and `finish` write beside those of every rollout."""
        return {}

    @staticmethod
    @abstractmethod
    def rollout_steps(config: Any) -> int:
        """Steps per environment and rollout."""

    @staticmethod
    @abstractmethod
    def explore(model: Any, rows: Tensor, noise: Tensor, config: Any, clock: Clock) -> Acted:
        """Actions for encoded observations `rows` [B, …], with noise [B, K] from the model's `draw_noise`.

        `clock` is that of this very step. Called without gradients.
        """

    @staticmethod
    def finish(model: Any, rollout: Rollout, config: Any) -> None:
        """Fill columns that need the whole rollout, such as bootstrap values. Called without gradients."""
        del model, rollout, config  # most algorithms have none

    @staticmethod
    @abstractmethod
    def prepare(learner: Learner, config: Any) -> None:
        """Give a new learner its optimizers, target networks and replay buffer."""

    @staticmethod
    @abstractmethod
    def update(learner: Learner, rollout: Rollout, config: Any, clock: Clock) -> dict[str, float]:
        """Learn from one iteration's rollout, all groups side by side; returns metrics under Stable-Baselines3's tags.

        `clock` is that of the iteration's start. What the update changes must be the learner's parts, so that it can be
        saved and repeated.
        """
