"""Ape-X DQN: Horgan et al., 2018, arXiv 1803.00933, algorithms 1 and 2.

    rollout workers, for ever:  take the newest weights; act ε_i-greedily in environment i for train_freq timesteps,
                                    ε_i = ε^(1 + 7 i / (N − 1)); the first priorities are the errors of these weights
    learner, for ever:          store what has come in the replay shards; gradient_steps times: a minibatch by priority;
                                    y ← r + γⁿ Q(s', argmax Q(s', ·; θ); θ⁻); descend on huber(y − Q(s, a; θ));
                                    set the priorities of the minibatch
                                every target_update_interval minibatches: θ⁻ ← θ;  publish the weights

Neither waits for the other, but where samples_per_insert keeps draws and inserts in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..rl import (
    Acted,
    AsynchronousAlgorithm,
    AsynchronousReplayConfig,
    Clock,
    Column,
    Learner,
    ModelSpec,
    OffPolicyAlgorithm,
    Rate,
    Rollout,
    RunSettings,
    fill_next_values,
    number,
    one_per_environment,
    take_gradient_steps,
    torch,
)
from .dqn import descend, dqn_loss

if TYPE_CHECKING:
    from torch import Tensor

    from ..rl import QNetwork, Rows


@dataclass(frozen=True, kw_only=True)
class ApeXConfig(AsynchronousReplayConfig):
    """Hyperparameters of Ape-X, those of `AsynchronousReplayConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(1e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    learning_starts: int = number(1000, whole=True, at_least=0)
    """Environment steps, over all environments, before the first update."""
    batch_size: int = number(64, whole=True, at_least=1)
    """Transitions per minibatch."""
    train_freq: int = number(20, whole=True, at_least=1)
    """Steps per environment and rollout."""
    gradient_steps: int = number(one_per_environment(), whole=True, at_least=1)
    """Minibatches per update, which ends with new weights for the workers; one for each environment by default."""
    n_step: int = number(3, whole=True, at_least=1)
    """Rewards summed before the target bootstraps."""
    exploration_eps: float = number(0.4, at_least=0, at_most=1)
    """ε of the first environment."""
    exploration_alpha: float = number(7.0, at_least=0)
    """ε of environment i of N is exploration_eps^(1 + exploration_alpha · i / (N − 1))."""
    target_update_interval: int = number(2500, whole=True, at_least=1)
    """Minibatches between two copies of the weights into the target network."""
    prioritized_replay_alpha: float = number(0.6, at_least=0, at_most=1)
    """How much the error decides which transitions are drawn (α): 0 is uniform."""
    prioritized_replay_beta: float = number(0.4, at_least=0, at_most=1)
    """How much importance weights correct for it (β)."""
    double_q: bool = True
    """Whether the weights choose the action whose value the target network gives."""
    dueling: bool = True
    """Whether value and advantages are separate outputs of the network."""
    max_grad_norm: float | None = number(40.0, above=0, optional=True)
    """The gradient's norm is clipped to this."""


class ApeX(AsynchronousAlgorithm[ApeXConfig], OffPolicyAlgorithm[ApeXConfig]):
    """Ape-X on rollout workers, one learner and replay shards. Arguments as in `Algorithm`, hyperparameters as in
    `ApeXConfig`."""

    name = "apex"
    config_class = ApeXConfig
    presets_path = Path(__file__).parent / "presets" / "apex.toml"
    models = ("q_network",)
    unsharded_since = "one learner draws from its replay shards, and tells them their priorities"

    def check(self) -> None:
        """Raise InputError if `limits` does."""
        super().check()
        self.config.limits(self.run)

    @staticmethod
    def model_options(config: ApeXConfig) -> dict[str, Any]:
        """Dueling is a matter of the network."""
        return {"dueling": True} if config.dueling else {}

    @staticmethod
    def records(spec: ModelSpec) -> dict[str, Any]:
        """For the first priorities: `values` is Q of what was done, `next_values` that of the best action then."""
        return {"values": Column(), "next_values": Column(), "best": Column(scratch=True)}

    @staticmethod
    def exploration(config: ApeXConfig, settings: RunSettings, group: int, agents: int = 1) -> Tensor:
        """ε of each row of a group, [B] float32: that of its environment."""
        size = settings.environments_per_group
        share = (group * size + np.arange(size).repeat(agents)) / max(1, settings.n_envs - 1)
        return torch.from_numpy((config.exploration_eps ** (1 + config.exploration_alpha * share)).astype(np.float32))

    @staticmethod
    def explore(model: QNetwork, rows: Rows, noise: Tensor, config: Any, clock: Clock) -> Acted:
        """ε-greedily, with `config` the ε of each row."""
        q = model(rows)
        actions = model.choose(q, noise, config)
        values = q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        return Acted(actions, {"values": values, "best": q.amax(-1)})

    @staticmethod
    def finish(model: QNetwork, rollout: Rollout, config: ApeXConfig) -> None:
        """Fill `next_values`."""
        rollout.steps["next_values"][:-1] = rollout.steps["best"][1:]
        fill_next_values(model, rollout, lambda rows: model(rows).amax(-1))

    @staticmethod
    def prepare(learner: Learner, config: ApeXConfig) -> None:
        """Adam, the target network θ⁻, the replay shards."""
        learner.adam()
        learner.add_target()
        learner.add_sharded_replay(
            config.buffer_size,
            shards=config.replay_shards,
            gamma=config.gamma,
            n_step=config.n_step,
            alpha=config.prioritized_replay_alpha,
        )

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: ApeXConfig, clock: Clock) -> dict[str, float]:
        """Store what has come; then `gradient_steps` minibatches, and the target network when its time has come."""
        for part in rollout.by_group:
            learner.replay.insert(part)
        lags = [learner.iteration - part.version for part in rollout.by_group]
        told = {"train/lag_mean": float(np.mean(lags)), "train/lag_max": max(lags)} if lags else {}
        if not learner.can_sample(clock.after(rollout.timesteps), config.learning_starts):
            return told
        before = learner.n_updates
        step = partial(descend, loss_of=dqn_loss, beta=config.prioritized_replay_beta)
        metrics = take_gradient_steps(learner, config, clock, step)
        if learner.n_updates // config.target_update_interval != before // config.target_update_interval:
            learner.update_target()
        return metrics | told | {"replay/sampled": config.gradient_steps * config.batch_size}
