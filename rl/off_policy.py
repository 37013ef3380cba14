"""What off-policy algorithms share: short rollouts into a replay buffer that must fit into memory, and minibatches of
it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..runtime import InputError, machine_memory
from .actors import ActorLearnerRun
from .clock import Clock
from .colocated import ColocatedRun
from .cycles import cycles_of, one_iteration
from .data.columns import replay_columns
from .data.replay import replay_nbytes
from .data.rollout import Rollout
from .data.sum_tree import SumTree
from .lazy import torch
from .learn.learner import Learner
from .models.joint_spec import JointSpec, learning_specs
from .online import OnlineAlgorithm
from .run import Run
from .schedules import Rate, rate_at
from .settings import number, one_per_environment, validate
from .training_state import IterationOutcome, TrainingState

logger = logging.getLogger("shoal")
_SHARE = 0.8
"""Of the machine's memory that a replay buffer may take."""
_OF_THE_BUFFER = ("buffer_size", "gamma", "n_step", "prioritized_replay")
"""Settings that decide what is in a replay buffer."""


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
    save_replay: bool = False
    """Whether checkpoints hold the replay memory, so that a resumed run goes on bit for bit; else it fills again."""

    def __post_init__(self) -> None:
        validate(self)


Replaying = TypeVar("Replaying", bound=ReplayConfig)


class OffPolicyAlgorithm(OnlineAlgorithm[Replaying], Generic[Replaying]):
    """Rollouts of `config.train_freq` steps per environment; a replay buffer of `config.buffer_size` transitions, drawn
    by priority where `config.prioritized_replay` says so."""

    plays_league = True

    @staticmethod
    def rollout_steps(config: Any) -> int:
        """Steps per environment between two updates."""
        return int(config.train_freq)

    def make_run(self) -> Run:
        """One actor that acts and learns, where one worker would step all environments and one learner learn; else
        rollout workers and learners."""
        run = self.run
        alone = min(run.workers, run.groups) == 1 and run.most_learners == 1
        if alone and run.listen is None and not isinstance(self.model_spec, JointSpec):
            return ColocatedRun(**self.run_options())
        return ActorLearnerRun(**self.run_options())

    def training_step(self, run: Any, state: TrainingState, clock: Clock) -> IterationOutcome:
        """One iteration: as many cycles, in which all groups act and the learner updates, as it has."""
        steps = self.rollout_steps(self.config) * self.run.n_envs
        cycles = cycles_of(steps, clock)
        if isinstance(run, ColocatedRun):
            return run.iterate(state, clock, cycles)
        return one_iteration(self._cycles(run, state, clock, cycles), state.iteration)

    def _cycles(self, run: Any, state: TrainingState, clock: Clock, cycles: int) -> Iterator[IterationOutcome]:
        first, now = state.iteration, state
        for cycle in range(cycles):
            now = replace(now, iteration=first, cycles=(cycle, cycles))
            yield (outcome := super().training_step(run, now, Clock(now.timesteps, clock.total_timesteps)))
            now = outcome.state

    def check_spaces(self) -> None:
        """Raise InputError, with the arithmetic, if the replay buffers cannot fit into memory."""
        config, specs = self.config, learning_specs(self.model_spec)
        if isinstance(self.model_spec, JointSpec) and self.model_spec.turns:
            self.require(config.n_step == 1, "n_step", config.n_step, "1, as the agents take turns")
        capacity = config.buffer_size
        kept = sum(replay_nbytes(replay_columns(s.observation_space, s.action_space), capacity) for s in specs)
        held = kept + len(specs) * (SumTree.nbytes_of(capacity) if getattr(config, "prioritized_replay", False) else 0)
        there = machine_memory()
        if held + kept > _SHARE * there:
            fits = int(capacity * _SHARE * there / (held + kept))
            raise InputError(
                f"buffer_size is {capacity:,}: at {held / capacity:,.0f} bytes a transition the replay buffer takes "
                f"{held / 2**30:.1f} GiB in the learner, and what brings it back {kept / 2**30:.1f} GiB in the object "
                f"store; together they may take {_SHARE:.0%} of this machine's {there / 2**30:.1f} GiB. "
                f"At most {fits:,} fit"
            )

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
    learner: Learner, config: Any, clock: Clock, descend: Callable[[Learner, Any, float], dict[str, Any]]
) -> dict[str, float]:
    """Call `descend` `config.gradient_steps` times, as `learn_from_replay` does."""
    rate = rate_at(config.learning_rate, clock.remaining)
    history: dict[str, list[Any]] = {}
    for _ in range(config.gradient_steps):
        for name, value in descend(learner, config, rate).items():
            history.setdefault(name, []).append(value)
    means = {name: _mean(values) for name, values in history.items()}
    return means | {"train/learning_rate": rate, "train/n_updates": learner.n_updates}


def _mean(values: list[Any]) -> float:
    if len(values) == 1 or not isinstance(values[0], torch.Tensor):
        return math.fsum(values) / len(values)
    return float(torch.stack(values).mean())
