"""What off-policy algorithms share: short rollouts into a replay buffer that must fit into memory, and minibatches of
it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ..runtime import InputError, human_bytes, machine_memory, nodes, object_store_memory
from .clock import Clock
from .colocated import ColocatedRun
from .cycles import cycles_of, one_iteration
from .data.columns import replay_columns
from .data.replay import replay_nbytes
from .data.rollout import Rollout
from .data.sum_tree import SumTree
from .lazy import torch
from .learn.learner import Learner
from .models.joint_spec import learning_specs
from .online import OnlineAlgorithm
from .schedules import Rate, rate_at
from .settings import Hyperparameters, number, one_per_environment
from .training_state import IterationOutcome, TrainingState

logger = logging.getLogger("shoal")
_SHARE = 0.8
"""Of the machine's memory, and of the object store's, that a replay buffer may take."""
_OF_THE_BUFFER = ("buffer_size", "gamma", "n_step", "prioritized_replay")
"""Settings that decide what is in a replay buffer."""


@dataclass(frozen=True, kw_only=True)
class ReplayConfig(Hyperparameters):
    """Hyperparameters of all that learn from a replay memory, with Stable-Baselines3's names and defaults.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(3e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    buffer_size: int = number(1_000_000, whole=True, at_least=1)
    """Transitions that the replay memory holds, over all environments. It lies in the object store, whose size in bytes
    the environment variable SHOAL_OBJECT_STORE_MEMORY sets; by default it has three tenths of the machine's memory."""
    learning_starts: int = number(100, whole=True, at_least=0)
    """Environment steps, over all environments, before the first update."""
    batch_size: int = number(256, whole=True, at_least=1, at_most=1_000_000)
    """Transitions per minibatch."""
    gamma: float = number(0.99, at_least=0, at_most=1)
    """Discount per step."""
    train_freq: int = number(1, whole=True, at_least=1)
    """Steps per environment between two updates."""
    gradient_steps: int = number(one_per_environment(), whole=True, at_least=1)
    """Minibatches per update; one for each environment by default."""
    n_step: int = number(1, whole=True, at_least=1)
    """Rewards summed before the target bootstraps."""
    save_replay: bool = False
    """Whether checkpoints hold the replay memory, so that a resumed run goes on bit for bit; else it fills again."""


Replaying = TypeVar("Replaying", bound=ReplayConfig)


class OffPolicyAlgorithm(OnlineAlgorithm[Replaying], Generic[Replaying]):
    """Rollouts of `config.train_freq` steps per environment; a replay buffer of `config.buffer_size` transitions, drawn
    by priority where `config.prioritized_replay` says so."""

    plays_league: ClassVar[bool] = True

    @staticmethod
    def rollout_steps(config: Any) -> int:
        """Steps per environment between two updates."""
        return int(config.train_freq)

    def training_step(self, run: Any, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration: as many cycles, in which all groups act and the learner updates, as it has."""
        steps = self.rollout_steps(self.config) * self.run.n_envs
        if isinstance(run, ColocatedRun):
            return run.iterate(state, clock, partial(cycles_of, steps))
        return one_iteration(self._cycles(run, state, clock, cycles_of(steps, clock)), state.iteration)

    def _cycles(self, run: Any, state: TrainingState, clock: Clock, cycles: int) -> Iterator[IterationOutcome]:
        first, now = state.iteration, state
        for cycle in range(cycles):
            now = replace(now, iteration=first, cycles=(cycle, cycles))
            yield (outcome := super().training_step(run, now, Clock(now.timesteps, clock.total_timesteps)))
            now = outcome.state

    def check_spaces(self) -> None:
        """Also raise InputError, with the arithmetic, if the replay buffers cannot fit into memory."""
        super().check_spaces()
        config = self.config
        rows, there = self._rows_nbytes, machine_memory()
        held = rows + self._priorities_nbytes
        self._require_room(
            held + rows,
            there,
            f"{held / config.buffer_size:,.0f} bytes a transition the replay buffer takes {human_bytes(held)}, and "
            f"what brings it back {human_bytes(rows)}; together they may take {_SHARE:.0%} of the {human_bytes(there)} "
            "of this machine",
        )

    def check_runtime(self) -> None:
        """Also raise InputError, with the arithmetic, if the replay buffers cannot fit into the object store."""
        super().check_runtime()
        there, learners = object_store_memory(), self.run.most_learners
        if there is None:
            return
        nodes_here = 1 if learners == 1 else sum(node.state == "ALIVE" for node in nodes())
        here = -(-learners // nodes_here)
        taken, buffers = here * self._rows_nbytes, "the replay buffer takes"
        if here > 1:
            buffers = f"the replay buffers of {here} learners take"
        self._require_room(
            taken,
            there,
            f"{taken / self.config.buffer_size:,.0f} bytes a transition {buffers} {human_bytes(taken)} of the "
            f"object store, and may take {_SHARE:.0%} of the {human_bytes(there)} that it has on this node",
            f". Or have a larger store: set SHOAL_OBJECT_STORE_MEMORY={int(taken / _SHARE) + 1}, or call "
            "runtime.init(object_store_memory=…) before",
        )

    def _require_room(self, taken: int, there: int, arithmetic: str, otherwise: str = "") -> None:
        size = self.config.buffer_size
        if taken > _SHARE * there:
            most = int(size * _SHARE * there / taken)
            raise InputError(f"buffer_size is {size:,}: at {arithmetic}. At most {most:,} fit{otherwise}")

    @property
    def _rows_nbytes(self) -> int:
        """Bytes of the transitions that the replay buffers of all policies hold when they are full."""
        specs, rows = learning_specs(self.model_spec), self.config.buffer_size
        return sum(replay_nbytes(replay_columns(spec.observation_space, spec.action_space), rows) for spec in specs)

    @property
    def _priorities_nbytes(self) -> int:
        """Bytes of their priorities."""
        has_priorities = hasattr(self.config, "prioritized_replay_alpha")
        prioritized = getattr(self.config, "prioritized_replay", has_priorities)  # Ape-X has no switch
        return len(learning_specs(self.model_spec)) * SumTree.nbytes_of(self.config.buffer_size) if prioritized else 0

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Any:
        """As `Algorithm.load`. A replay buffer that is not in the checkpoint fills again, which is logged; one that is
        there can only go on with the settings that it was made with, else InputError."""
        loaded = super().load(folder, **options)
        saved = loaded._saved
        if saved.replay is not None:
            for name in _OF_THE_BUFFER:
                made_with, now = saved.document["hyperparameters"].get(name), getattr(loaded.config, name, None)
                loaded.require(
                    now == made_with, name, now, f"{made_with!r}, as the saved replay buffer was made with it"
                )
        elif loaded.timesteps:
            logger.warning(
                "the checkpoint does not hold the replay buffer (--save-replay): it fills again, and no update is made "
                "before it holds learning_starts = %d transitions",
                loaded.config.learning_starts,
            )
        return loaded


def learn_from_replay(
    learner: Learner,
    rollout: Rollout,
    config: Replaying,
    clock: Clock,
    descend: Callable[[Learner, Replaying, float], dict[str, Any]],
) -> dict[str, float]:
    """Store a rollout, then descend on `config.gradient_steps` minibatches, once there is enough to draw from.

    `descend` makes one step with the learning rate that it is given, on a minibatch that it draws, counts it in
    `learner.n_updates` and returns metrics, each a scalar. Returns their means over the steps that had them, under
    Stable-Baselines3's tags; nothing where no step was made.
    """
    learner.replay.insert(rollout)
    if not learner.can_sample(clock.after(rollout.timesteps), config.learning_starts):
        return {}
    return take_gradient_steps(learner, config, clock, descend)


def take_gradient_steps(
    learner: Learner,
    config: Any,
    clock: Clock,
    descend: Callable[[Learner, Any, float], dict[str, Any]],
    steps: int | None = None,
) -> dict[str, float]:
    """Call `descend` so many times (default: `config.gradient_steps`), as `learn_from_replay` does."""
    rate = rate_at(config.learning_rate, clock.remaining)
    history: dict[str, list[Any]] = {}
    for _ in range(config.gradient_steps if steps is None else steps):
        for name, value in descend(learner, config, rate).items():
            history.setdefault(name, []).append(value)
    means = {name: _mean(values) for name, values in history.items()}
    return means | {"train/learning_rate": rate, "train/n_updates": learner.n_updates}


def _mean(values: list[Any]) -> float:
    if len(values) == 1 or not isinstance(values[0], torch.Tensor):
        return math.fsum(values) / len(values)
    return float(torch.stack(values).mean())
