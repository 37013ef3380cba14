"""Twin delayed deep deterministic policy gradient: algorithm 1 of Fujimoto et al., 2018 (arXiv 1802.09477); and DDPG
(Lillicrap et al., 2016, arXiv 1509.02971), which is TD3 with one critic, no noise in the target and no delay.

    for iteration = 1, 2, …
        act with μ(s) + noise for train_freq steps in every environment                      (rollout workers)
        store the transitions in the replay memory D                                          (learner)
        gradient_steps times: sample a minibatch of D;
            a' ← μ(s'; φ⁻) + clip(noise, −c, c), within the bounds
            critics   descend on (Q_i(s, a) − y)²,  y ← r + discount · min_i Q_i(s', a'; θ⁻)
            every policy_delay updates:  actor  ascend Q_1(s, μ(s));  θ⁻, φ⁻ ← τ (θ, φ) + (1 − τ) (θ⁻, φ⁻)

Actions are in [−1, 1] here, so noise is in halves of the action space's width. Names and defaults are
Stable-Baselines3's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..rl import (
    Acted,
    Clock,
    Learner,
    OffPolicyAlgorithm,
    Rate,
    ReplayConfig,
    Rollout,
    learn_from_replay,
    number,
    takes_arrays,
    torch,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DelayedConfig:
    """Hyperparameters of all whose critics are TD3's."""

    tau: float = number(0.005, above=0, at_most=1)
    """How far the targets go towards the networks with each delayed update (τ)."""
    policy_delay: int = number(2, whole=True, at_least=1)
    """Updates of the critics for each of the actor and the targets (d)."""
    target_policy_noise: float = number(0.2, at_least=0)
    """Standard deviation of the noise in the target's action (σ̃)."""
    target_noise_clip: float = number(0.5, at_least=0)
    """Where that noise is clipped (c)."""
    n_critics: int = number(2, whole=True, at_least=1)
    """Critics, of which the smallest value makes the target."""


@dataclass(frozen=True, kw_only=True)
class TD3Config(DelayedConfig, ReplayConfig):
    """Hyperparameters of TD3, with Stable-Baselines3's names and defaults, those of `ReplayConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(1e-3, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    learning_starts: int = number(100, whole=True, at_least=0)
    """Environment steps, over all environments, before the first update; until then actions are uniform."""
    action_noise: float = number(0.1, at_least=0)
    """Standard deviation of the noise that is added to actions in rollouts."""


@dataclass(frozen=True, kw_only=True)
class DDPGConfig(TD3Config):
    """Hyperparameters of DDPG: those of TD3 with its three additions switched off."""

    policy_delay: int = number(1, whole=True, at_least=1)
    """Updates of the critic for each of the actor and the targets."""
    target_policy_noise: float = number(0.0, at_least=0)
    """Standard deviation of the noise in the target's action."""
    n_critics: int = number(1, whole=True, at_least=1)
    """Critics, of which the smallest value makes the target."""


def td3_target(target: Any, minibatch: dict[str, Tensor], noise: Tensor, config: DelayedConfig) -> Tensor:
    """y [B] (algorithm 1, lines 8 and 9); `noise` [B, K] is standard normal."""
    rows, clip = minibatch["next_observations"], config.target_noise_clip
    smoothing = (config.target_policy_noise * noise).clamp(-clip, clip)
    actions = (target.choose(target.outputs(rows), None) + smoothing).clamp(-1, 1)
    return minibatch["rewards"] + minibatch["discounts"] * target.values(rows, actions).amin(0)


class TD3(OffPolicyAlgorithm[TD3Config]):
    """TD3 on rollout workers and one learner. Arguments as in `Algorithm`, hyperparameters as in `TD3Config`."""

    name = "td3"
    config_class = TD3Config
    models = ("deterministic_actor_q",)
    shards_gradients = True
    presets_path: ClassVar[Path | None] = Path(__file__).parent / "presets" / "td3.toml"

    @staticmethod
    def model_options(config: TD3Config) -> dict[str, Any]:
        """The number of critics, and the authors' widths of layers."""
        return {"n_critics": config.n_critics, "net_arch": [400, 300]}

    @staticmethod
    @takes_arrays
    def explore(model: Any, rows: Any, noise: Any, config: TD3Config, clock: Clock) -> Acted:
        """The policy's actions with noise; uniform ones before learning starts."""
        if clock.timesteps < config.learning_starts:
            return Acted(model.uniform(rows, noise))
        return Acted(model.choose(model.outputs(rows), noise, config.action_noise))

    @staticmethod
    def prepare(learner: Learner, config: TD3Config) -> None:
        """Adam for actor and critics, their targets, the replay memory."""
        learner.adam("actor")
        learner.adam("critics")
        learner.add_target()
        learner.add_replay(config.buffer_size, gamma=config.gamma, n_step=config.n_step)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: TD3Config, clock: Clock) -> dict[str, float]:
        """Store the rollout, then `gradient_steps` minibatches."""
        return learn_from_replay(learner, rollout, config, clock, descend)


class DDPG(TD3):
    """TD3 without its three additions. Arguments as in `Algorithm`, hyperparameters as in `DDPGConfig`."""

    name = "ddpg"
    config_class = DDPGConfig
    presets_path: ClassVar[Path | None] = None


def descend(learner: Learner, config: TD3Config, learning_rate: float) -> dict[str, Tensor]:
    """One step of Adam for the critics on one minibatch; every `policy_delay`-th time for the actor and the targets."""
    model = learner.model
    minibatch, _ = learner.sample(config.batch_size)
    minibatch["noise"] = learner.noise(config.batch_size)

    def loss_of_critics(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            y = td3_target(learner.target, rows, rows["noise"], config)
        loss = (model.values(rows["observations"], rows["actions"]) - y).square().mean(-1).sum()
        return loss, {"train/critic_loss": loss.detach()}

    def loss_of_actor(rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        seen = rows["observations"]
        loss = -model.first_value(seen, model.choose(model.outputs(seen), None)).mean()
        return loss, {"train/actor_loss": loss.detach()}

    metrics = learner.minimize(minibatch, loss_of_critics, "critics", learning_rate=learning_rate)
    learner.n_updates += 1
    if learner.n_updates % config.policy_delay == 0:
        metrics |= learner.minimize(minibatch, loss_of_actor, "actor", learning_rate=learning_rate)
        learner.update_target(config.tau)
    return metrics
