"""What on-policy actor-critic algorithms share: acting with a value beside each action, and bootstrap values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from .algorithm import Algorithm, Config
from .clock import Clock
from .data.batch import Batch, Column
from .data.returns import explained_variance, generalized_advantages
from .data.rollout import Rollout
from .data.tree import Tree, tree_map
from .declaration import Acted
from .lazy import torch
from .models.architecture import row_size
from .models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

    from .learn.learner import Learner
    from .models.actor_critic import ActorCritic


class OnPolicyAlgorithm(Algorithm[Config], Generic[Config]):
    """Rollouts of `config.n_steps` steps per environment, with the records `values`, `log_probs` and `next_values`,
    all [T, N] float32.

    `values` is V of the observation before a step, `log_probs` is log π(action) of the weights that acted.
    `next_values` is V of the observation after the step: that of the true final one where an episode was truncated, and
    at the last step; 0 where it terminated.
    """

    @staticmethod
    def records(spec: ModelSpec) -> dict[str, Tree]:
        """`outputs` are what describes the distributions: log-probabilities of a whole rollout are made from them."""
        outputs = Column((row_size(spec.action_space),), scratch=True)
        return {"values": Column(), "log_probs": Column(), "next_values": Column(), "outputs": outputs}

    @staticmethod
    def rollout_steps(config: Any) -> int:
        """T of the papers."""
        return int(config.n_steps)

    @staticmethod
    def explore(model: ActorCritic, rows: Tensor, noise: Tensor, config: Any, clock: Clock) -> Acted:
        """Draw from the policy."""
        outputs, values = model(rows)
        return Acted(model.choose(outputs, noise), {"outputs": outputs, "values": values})

    @staticmethod
    def finish(model: ActorCritic, rollout: Rollout, config: Any) -> None:
        """Fill `log_probs` and `next_values`."""
        steps, flat = rollout.steps, rollout.steps.flat()
        distribution = model.distribution(torch.from_numpy(flat["outputs"]))
        log_probs = distribution.log_prob(torch.from_numpy(flat["actions"]))
        steps["log_probs"][:] = log_probs.numpy().reshape(rollout.shape)
        next_values = steps["next_values"]
        next_values[:-1] = steps["values"][1:]
        rows = rollout.finals["rows"]
        next_values.reshape(-1)[rows] = _values(model, rollout.finals["observations"], len(rows), rollout.shape[1])
        next_values[steps["terminations"]] = 0


def _values(model: ActorCritic, observations: Tree, count: int, size: int) -> np.ndarray:
    """V of `count` observations, by forward passes of `size` rows each: a row's bits depend on how many there are, and
    how many environments a group has must be all that decides it."""
    values = np.empty(count, np.float32)
    for start in range(0, count, size):
        chosen = np.arange(start, start + size) % count
        part = model.values(model.encode(tree_map(lambda leaf, chosen=chosen: leaf[chosen], observations)))
        values[start : start + size] = part.numpy()[: count - start]
    return values


def advantages_and_returns(steps: Batch, *, gamma: float, gae_lambda: float) -> tuple[np.ndarray, np.ndarray]:
    """Generalized advantages and λ-returns of a rollout's steps, both [T, N] float32."""
    terminations = steps["terminations"]
    advantages = generalized_advantages(
        r_t=steps["rewards"],
        discount_t=np.where(terminations, np.float32(0), np.float32(gamma)),
        continues_t=(~(terminations | steps["truncations"])).astype(np.float32),
        v_tm1=steps["values"],
        v_t=steps["next_values"],
        lambda_=gae_lambda,
    )
    return advantages, advantages + steps["values"]


def learning_batch(learner: Learner, rollout: Rollout, *, gamma: float, gae_lambda: float) -> dict[str, Tensor]:
    """The rows of a rollout as tensors: `rows` (encoded observations) [B, …], `actions`, and [B] float32 `log_probs`,
    `values` (both of the weights that acted), `advantages` and `returns`."""
    advantages, returns = advantages_and_returns(rollout.steps, gamma=gamma, gae_lambda=gae_lambda)
    learner.advantages = advantages
    flat = rollout.steps.flat()
    kept = {name: flat[name] for name in ("actions", "log_probs", "values")}
    batch = learner.tensors({**kept, "advantages": advantages.ravel(), "returns": returns.ravel()})
    return batch | {"rows": learner.model.encode(flat["observations"])}


def learning_metrics(learner: Learner, batch: Mapping[str, Tensor], learning_rate: float) -> dict[str, float]:
    """Metrics that every update on a `learning_batch` has, under Stable-Baselines3's tags."""
    values, returns = batch["values"].cpu().numpy(), batch["returns"].cpu().numpy()
    deviation = learner.model.standard_deviation()
    return {
        **({} if deviation is None else {"train/std": deviation}),
        "train/explained_variance": explained_variance(values, returns),
        "train/learning_rate": learning_rate,
        "train/n_updates": learner.n_updates,
    }
