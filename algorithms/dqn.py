"""Deep Q-learning: Mnih et al., 2015, algorithm 1. Switches: double (van Hasselt et al., 2016, arXiv 1509.06461),
dueling (Wang et al., 2016, arXiv 1511.06581), n-step, prioritized replay (Schaul et al., 2016, arXiv 1511.05952).

    for iteration = 1, 2, …
        act ε-greedily for train_freq steps in every environment                             (rollout workers)
        store the transitions in the replay memory D                                          (learner)
        gradient_steps times: sample a minibatch of D;
            y ← r + discount · max_a' Q(s', a'; θ⁻);  descend on huber(y − Q(s, a; θ))
        every target_update_interval environment steps: θ⁻ ← τ θ + (1 − τ) θ⁻

Names and defaults are Stable-Baselines3's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    plain_td_loss,
    takes_arrays,
    torch,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..rl import KnownLoss, QNetwork

    Loss = Callable[[Any, Any, dict[str, Any], Any], tuple[Tensor | KnownLoss, Any, Any]]
    """(model, target, minibatch, config) → loss, temporal-difference errors [B], values [B] of the actions taken."""


@dataclass(frozen=True, kw_only=True)
class DQNConfig(ReplayConfig):
    """Hyperparameters of DQN, with Stable-Baselines3's names and defaults, those of `ReplayConfig` included.

    Raises:
        InputError: a value that cannot work.
    """

    learning_rate: Rate = number(1e-4, rate=True, above=0)  # noqa: RUF009 — it makes a field
    """Step size of Adam; a number, or lin_NUMBER to let it fall linearly to 0."""
    batch_size: int = number(32, whole=True, at_least=1)
    """Transitions per minibatch."""
    train_freq: int = number(4, whole=True, at_least=1)
    """Steps per environment between two updates."""
    target_update_interval: int = number(10_000, whole=True, at_least=1)
    """Environment steps, over all environments, between two updates of the target network."""
    tau: float = number(1.0, above=0, at_most=1)
    """How far the target network then goes towards the weights: 1 copies them."""
    exploration_fraction: float = number(0.1, at_least=0, at_most=1)
    """Part of the training over which ε falls from exploration_initial_eps to exploration_final_eps."""
    exploration_initial_eps: float = number(1.0, at_least=0, at_most=1)
    """ε at the start."""
    exploration_final_eps: float = number(0.05, at_least=0, at_most=1)
    """ε after that."""
    max_grad_norm: float | None = number(10.0, above=0, optional=True)
    """The gradient's norm is clipped to this."""
    double_q: bool = False
    """Whether the weights choose the action whose value the target network gives."""
    dueling: bool = False
    """Whether value and advantages are separate outputs of the network."""
    prioritized_replay: bool = False
    """Whether transitions are drawn in proportion to their last error."""
    prioritized_replay_alpha: float = number(0.6, at_least=0, at_most=1)
    """How much the error decides (α): 0 is uniform."""
    prioritized_replay_beta0: float = number(0.4, at_least=0, at_most=1)
    """How much importance weights correct for it at the start (β), rising linearly to 1 at the end."""


def epsilon(config: DQNConfig, clock: Clock) -> float:
    """ε at an environment step."""
    fraction = config.exploration_fraction
    done = min(1.0, (1 - clock.remaining) / fraction) if fraction else 1.0
    return config.exploration_initial_eps + done * (config.exploration_final_eps - config.exploration_initial_eps)


def dqn_loss(
    model: QNetwork, target: QNetwork, minibatch: dict[str, Tensor], config: DQNConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Huber loss, weighted by importance; temporal-difference errors [B]; and values [B] of the actions taken."""
    q = model(minibatch["observations"]).gather(-1, minibatch["actions"].unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        next_q = target(minibatch["next_observations"])
        chooser = model(minibatch["next_observations"]) if config.double_q else next_q
        next_value = next_q.gather(-1, chooser.argmax(-1, keepdim=True)).squeeze(-1)
        y = minibatch["rewards"] + minibatch["discounts"] * next_value
    losses = torch.nn.functional.huber_loss(q, y, reduction="none")
    return (minibatch["weights"] * losses).mean(), (y - q).detach(), q.detach()


class DQN(OffPolicyAlgorithm[DQNConfig]):
    """DQN on rollout workers and one learner. Arguments as in `Algorithm`, hyperparameters as in `DQNConfig`."""

    name = "dqn"
    config_class = DQNConfig
    presets_path: ClassVar[Path | None] = Path(__file__).parent / "presets" / "dqn.toml"
    models = ("q_network",)
    shards_gradients = True

    @staticmethod
    def schedules(config: DQNConfig) -> tuple[str, ...]:
        """ε, and β of prioritized replay."""
        falls = config.exploration_fraction > 0 and config.exploration_initial_eps != config.exploration_final_eps
        rises = config.prioritized_replay and config.prioritized_replay_beta0 < 1
        names = {"exploration_fraction": falls, "prioritized_replay_beta0": rises}
        return tuple(name for name, depends in names.items() if depends)

    @staticmethod
    def model_options(config: DQNConfig) -> dict[str, Any]:
        """Dueling is a matter of the network."""
        return {"dueling": True} if config.dueling else {}

    @staticmethod
    @takes_arrays
    def explore(model: Any, rows: Any, noise: Any, config: DQNConfig, clock: Clock) -> Acted:
        """ε-greedily."""
        return Acted(model.explore(rows, noise, epsilon(config, clock)))

    @staticmethod
    def prepare(learner: Learner, config: DQNConfig) -> None:
        """Adam, the target network θ⁻, the replay memory."""
        learner.adam()
        learner.add_target()
        alpha = config.prioritized_replay_alpha if config.prioritized_replay else None
        learner.add_replay(config.buffer_size, gamma=config.gamma, n_step=config.n_step, alpha=alpha)

    @staticmethod
    def update(learner: Learner, rollout: Rollout, config: DQNConfig, clock: Clock) -> dict[str, float]:
        """Store the rollout; then `gradient_steps` minibatches, and the target network when its time has come."""
        return learn(learner, rollout, config, clock, dqn_loss if learner.plain is None else plain_td_loss)


def learn(learner: Learner, rollout: Rollout, config: DQNConfig, clock: Clock, loss: Loss) -> dict[str, float]:
    """The update of all that learn the value of each action: a rollout in, minibatches, the target network."""
    beta = 1 - clock.remaining * (1 - config.prioritized_replay_beta0)
    metrics = learn_from_replay(learner, rollout, config, clock, partial(descend, loss_of=loss, beta=beta))
    if clock.passes(config.target_update_interval, rollout.timesteps):
        learner.update_target(config.tau)
    return metrics | {"rollout/exploration_rate": epsilon(config, clock.after(rollout.timesteps))}


def descend(learner: Learner, config: DQNConfig, learning_rate: float, *, loss_of: Loss, beta: float) -> dict[str, Any]:
    """One step of Adam on one minibatch, with importance weights to the degree β."""
    minibatch, indices = learner.sample(config.batch_size, beta=beta, plain=loss_of is plain_td_loss)

    def loss_and_values(rows: dict[str, Any]) -> tuple[Tensor | KnownLoss, dict[str, Any]]:
        loss, errors, q = loss_of(learner.model, learner.target, rows, config)
        return loss, {"train/loss": loss.detach(), "train/q_values": q.sum() / len(q), "errors": errors}

    told = learner.minimize(minibatch, loss_and_values, learning_rate=learning_rate, max_grad_norm=config.max_grad_norm)
    learner.set_errors(indices, told.pop("errors"))
    learner.n_updates += 1
    return told
