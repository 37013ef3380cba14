"""What an algorithm declares of itself. Nothing runs here: rollout workers and the learner ask it, by its class.

Collecting    explore, finish     in rollout workers: how the model acts, and what is known once a rollout is whole
Learning      prepare, update     in the learner: optimizers and targets; the next weights from what all groups did

An algorithm is both, one of them (from a dataset nothing is collected), or neither (a search without gradients).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .clock import Clock
from .data.tree import Tree
from .schedules import changes

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from .data.rollout import Rollout
    from .learn.learner import Learner
    from .models.rows import Rows
    from .models.spec import ModelSpec
    from .settings import RunSettings


class Acted(NamedTuple):
    """What `explore` chose for the rows of one step."""

    actions: Tensor | np.ndarray
    """[B, …] as the model gives them, before `to_env_actions`."""
    records: Mapping[str, Tensor | np.ndarray] = MappingProxyType({})
    """[B, …] for columns of `records`."""


def takes_arrays(explore: Any) -> Any:
    """Mark a function `explore` as one that does with arrays, and what stands for a model in numpy, what it does with
    tensors and the model: plain models then act in numpy."""
    explore.takes_arrays = True
    return explore


class Declaration(ABC):
    """What every algorithm says. One file per algorithm overrides this. All methods are static: they take what they
    need as arguments, so that what they give depends on nothing else."""

    name: ClassVar[str]
    """As in the command line: lower case."""
    config_class: ClassVar[type]
    """Frozen dataclass of the hyperparameters; its fields' docstrings are their help."""
    presets_path: ClassVar[Path | None] = None
    """TOML table of settings tuned per environment."""
    takes_simulators: ClassVar[bool] = False
    """Whether simulators outside (`listen`) may be what it learns from."""
    models: ClassVar[tuple[str, ...]] = ("actor_critic",)
    """Kinds of model, keys of `models.build.MODELS`: the first that takes the action space is used."""

    takes_memory: ClassVar[bool] = True
    """Whether it learns from sequences, where a kind of its models can have a memory."""
    needs_environment: ClassVar[bool] = True
    """Whether there is nothing to train on without one."""

    has_workers: ClassVar[bool] = False
    """Whether processes of its own step environments."""
    trains_agents: ClassVar[bool] = True
    """Whether the agents of an environment may be several."""
    reads_dataset: ClassVar[bool] = False
    """Whether its learners draw from a dataset that is read while they learn (`Learner.add_dataset`)."""
    plays_league: ClassVar[bool] = False
    """Whether it learns from rollouts against earlier snapshots of its policy."""
    shards_gradients: ClassVar[bool] = False
    """Whether the learner differentiates its losses (`Learner.differentiate`), and so may do it in shards."""
    unsharded_since: ClassVar[str] = "it does not minimize by the learner's losses over rows"
    """Why not, for whom it is refused."""

    run_defaults: ClassVar[Mapping[str, Any]] = {}
    """Run settings whose defaults are others here."""

    @staticmethod
    def schedules(config: Any) -> tuple[str, ...]:
        """Hyperparameters, beside rates, that make steps depend on how long the training is to be."""
        del config
        return ()

    @classmethod
    def scheduled(cls, config: Any) -> tuple[str, ...]:
        """All hyperparameters by which the steps of a training depend on its total, rates that change included."""
        rates = [item.name for item in fields(config) if getattr(item.metadata.get("bounds"), "rate", False)]
        return (*(name for name in rates if changes(getattr(config, name))), *cls.schedules(config))

    @staticmethod
    def critic_sees(config: Any) -> str:
        """What the critic of one of several agents sees: "own", what the agent sees; "observations", what all see; or
        "state", the environment's own. By default what a hyperparameter `centralized_critic` says, if there is one."""
        chosen: str = getattr(config, "centralized_critic", "none")
        return "own" if chosen == "none" else chosen

    @staticmethod
    def model_options(config: Any) -> dict[str, Any]:
        """What hyperparameters decide of the network, as entries of `policy_kwargs`."""
        return {}


class Collecting(Declaration):
    """What rollout workers ask."""

    has_workers: ClassVar[bool] = True

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
    def explore(model: Any, rows: Rows, noise: Tensor, config: Any, clock: Clock) -> Acted:
        """Actions for encoded observations `rows` [B, …], with noise [B, K] from the model's `draw_noise`.

        `clock` is that of this very step. Called without gradients.
        """

    @classmethod
    def acting(cls, model: Any) -> Any:
        """What `explore` is given in the place of the model in rollout workers, with rows as it encodes them and noise
        as its `given` has it: the model, or what stands for it in numpy, where `explore` takes either (see
        `takes_arrays`); one of a subclass that is not marked is given tensors."""
        plain = getattr(model, "plain", None) if getattr(cls.explore, "takes_arrays", False) else None
        return plain or model

    @staticmethod
    def exploration(config: Any, settings: RunSettings, group: int, agents: int = 1) -> Any:
        """What `explore` is told in the place of `config` in a simulation group, where its environments differ; each
        environment has a row for each of so many `agents`, side by side."""
        return config

    @staticmethod
    def finish(model: Any, rollout: Rollout, config: Any) -> None:
        """Fill columns that need the whole rollout, such as bootstrap values. Called without gradients."""
        del model, rollout, config  # most algorithms have none


class Learning(Declaration):
    """What the learner asks."""

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
