"""The actors of one training, and what the driver asks of them: collect rollouts, learn from them.

The driver passes references between the actors; it reads the small statistics and metrics, and never a trajectory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from .. import runtime
from ..envs import EnvSpec
from ..runtime import ObjectRef, exceptions, get
from .learner import Learner
from .rollout import RolloutStats, RolloutWorker
from .settings import RunSettings
from .training_state import IterationOutcome, TrainingState, extend_window

RETRIES = 10
"""How often a call is repeated whose process died: an environment that always crashes must not be tried for ever."""

logger = logging.getLogger("shoal")


@dataclass(frozen=True)
class Rollouts:
    """References to what all groups collected in one iteration, in group order."""

    trajectories: list[ObjectRef]
    groups: list[ObjectRef]
    stats: list[ObjectRef]


class TrainingActors:
    """The rollout workers and the learner. They restart if their process dies, and repeat what they were doing."""

    def __init__(
        self,
        *,
        spec: EnvSpec,
        run: RunSettings,
        config: Any,
        update: Callable[..., Any],
        observation_space: spaces.Space,
        action_space: spaces.Space,
    ) -> None:
        self._env_id, self._run, self._n_steps = spec.id, run, config.n_steps
        if run.workers > run.groups:
            idle = run.workers - run.groups
            logger.warning("%d of %d workers stay idle: there are %d simulation groups", idle, run.workers, run.groups)
        # Training repeats calls, from weights that it holds; with lineage it would keep all iterations' (DESIGN 2.7).
        recoverable = {"max_restarts": -1, "max_task_retries": RETRIES, "lineage": False}
        gpus = 1 if run.device != "cpu" and runtime.cluster_resources().get("GPU", 0) >= 1 else 0
        learner_class = runtime.remote(Learner).options(num_gpus=gpus, **recoverable)
        worker_class = runtime.remote(RolloutWorker).options(**recoverable)
        self.learner = learner_class.remote(update, config, run, observation_space, action_space)
        self.rollout_workers = [
            worker_class.remote(spec, run, config.n_steps) for _ in range(min(run.workers, run.groups))
        ]

    def initial_state(self) -> TrainingState:
        """The state before the first iteration."""
        weights, optimizer = self.learner.initial_state.remote()
        groups = (None,) * self._run.groups
        return TrainingState(iteration=0, timesteps=0, weights=weights, optimizer=optimizer, groups=groups, recent=())

    def device(self) -> str:
        """Where the learner computes."""
        return str(get(self.learner.device.remote()))

    def collect(self, state: TrainingState) -> Rollouts:
        """Start a rollout of every simulation group under the weights of `state`: of group g by worker g % workers."""
        collected = [
            self.rollout_workers[group % len(self.rollout_workers)].collect.remote(
                group, [state.groups[group]], state.weights, state.iteration
            )
            for group in range(self._run.groups)
        ]
        trajectories, groups, stats = (list(refs) for refs in zip(*collected, strict=True))
        return Rollouts(trajectories, groups, stats)

    def learn(self, state: TrainingState, rollouts: Rollouts, remaining_progress: float) -> IterationOutcome:
        """Let the learner update on the rollouts, in group order, and wait for it; raises what either raised."""
        weights, optimizer, metrics = self.learner.update.remote(
            rollouts.trajectories, [state.weights, state.optimizer], state.iteration, remaining_progress
        )
        stats = self._stats(rollouts)  # first: an environment's exception is the cause of all others
        episodes = sorted(
            (episode for group in stats for episode in group.episodes),
            key=lambda episode: (episode.end_step, episode.environment),
        )
        following = TrainingState(
            iteration=state.iteration + 1,
            timesteps=state.timesteps + self._run.n_envs * self._n_steps,
            weights=weights,
            optimizer=optimizer,
            groups=tuple(rollouts.groups),
            recent=extend_window(state.recent, episodes),
        )
        times = {
            "time/environment_seconds": sum(group.environment_seconds for group in stats),
            "time/inference_seconds": sum(group.inference_seconds for group in stats),
            "time/restore_seconds": sum(group.restore_seconds for group in stats),
        }
        return IterationOutcome(state=following, episodes=episodes, metrics=get(metrics) | times)

    def _stats(self, rollouts: Rollouts) -> list[RolloutStats]:
        try:
            return get(rollouts.stats)
        except exceptions.ActorUnavailableError as error:
            error.add_note(
                f"A rollout worker died {RETRIES + 1} times in the same rollout of environment {self._env_id!r}: "
                "the environment, or a library that it uses, seems to end its process. engine='serial' shows where"
            )
            raise

    def close(self) -> None:
        """End the actors."""
        if runtime.is_initialized():
            for actor in (*self.rollout_workers, self.learner):
                runtime.kill(actor)
