"""What on-policy actor-critic algorithms share: acting with a value beside each action, and bootstrap values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import numpy as np

from ..envs import codec
from .algorithm import Config
from .clock import Clock
from .data.batch import Batch, Column
from .data.returns import explained_variance, generalized_advantages
from .data.rollout import Rollout, going_on
from .data.tree import Tree, as_array, tree_map
from .declaration import Acted, takes_arrays
from .lazy import torch
from .models.spec import ModelSpec
from .online import OnlineAlgorithm

if TYPE_CHECKING:
    from torch import Tensor

    from .learn.learner import Learner
    from .models.actor_critic import ActorCritic
    from .models.plain import PlainActorCritic


class OnPolicyAlgorithm(OnlineAlgorithm[Config], Generic[Config]):
    """Rollouts of `config.n_steps` steps per environment, with the records `values`, `log_probs` and `next_values`,
    all [T, N] float32.

    `values` is V of the observation before a step, `log_probs` is log π(action) of the weights that acted.
    `next_values` is V of the observation after the step: that of the true final one where an episode was truncated, and
    at the last step; 0 where it terminated.
    """

    plays_league: ClassVar[bool] = True

    @staticmethod
    def records(spec: ModelSpec) -> dict[str, Tree]:
        """`outputs` are what describes the distributions: log-probabilities of a whole rollout are made from them."""
        outputs = Column((codec(spec.action_space).row_size,), scratch=True)
        return {"values": Column(), "log_probs": Column(), "next_values": Column(), "outputs": outputs}

    @staticmethod
    def rollout_steps(config: Any) -> int:
        """T of the papers."""
        return int(config.n_steps)

    @staticmethod
    @takes_arrays
    def explore(model: Any, rows: Any, noise: Any, config: Any, clock: Clock) -> Acted:
        """Draw from the policy. Where the value network shares nothing with it, `finish` asks for the values."""
        if model.shares_layers:
            outputs, values = model(rows)
            return Acted(model.choose(outputs, noise), {"outputs": outputs, "values": values})
        outputs = model.outputs(rows)
        return Acted(model.choose(outputs, noise), {"outputs": outputs})

    @staticmethod
    def finish(model: ActorCritic, rollout: Rollout, config: Any) -> None:
        """Fill `log_probs`, `next_values`, and `values` where they are not known yet: one forward pass for a whole
        rollout instead of one for each step."""
        fill_log_probs(model, rollout)
        steps = rollout.steps
        critic: Any = model.plain or model
        if not model.shares_layers:
            values = critic.values(critic.encode(steps.only(["observations"]).flat()["observations"]))
            steps["values"][:] = as_array(values).reshape(rollout.shape)
        steps["next_values"][:-1] = steps["values"][1:]
        fill_next_values(critic, rollout, critic.values)


def fill_log_probs(model: ActorCritic, rollout: Rollout) -> None:
    """Fill the column `log_probs`, log π(action), from `outputs`, which describe the distributions that were acted
    with: those of a whole rollout in one go."""
    outputs, actions = rollout.steps.only(["outputs", "actions"]).flat().values()
    if model.plain is None:
        distribution = model.distribution(torch.from_numpy(outputs))
        log_probs = distribution.log_prob(torch.from_numpy(actions)).numpy()
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused as a whole
            log_probs = model.plain.distribution(outputs, actions).log_probs
    rollout.steps["log_probs"][:] = log_probs.reshape(rollout.shape)


def values_of(model: Any, finals: Batch, size: int, value: Callable[[Any], Any]) -> np.ndarray:
    """`value` of final observations, [E] float32, by forward passes of `size` rows each: a row's bits depend on how
    many there are, and how many environments a group has must be all that decides it."""
    count = finals.rows
    values = np.empty(count, np.float32)
    for start in range(0, count, size):
        chosen = finals.take(np.arange(start, start + size) % count)
        memory = None if model.memory is None else tree_map(torch.from_numpy, chosen["memory"])
        rows, _ = model.recall(model.encode(chosen["observations"]), memory)
        values[start : start + size] = as_array(value(rows))[: count - start]
    return values


def fill_next_values(model: Any, rollout: Rollout, value: Callable[[Any], Any]) -> None:
    """Complete the column `next_values` of a rollout, in which the values before all but the first steps are, one row
    earlier each: `value` of final observations, and 0 where an episode terminated."""
    next_values = rollout.steps["next_values"]
    rows = rollout.finals["rows"]
    next_values.reshape(-1)[rows] = values_of(model, rollout.finals, rollout.shape[1], value)
    next_values[rollout.steps["terminations"]] = 0


def advantages_and_returns(steps: Batch, *, gamma: float, gae_lambda: float) -> tuple[np.ndarray, np.ndarray]:
    """Generalized advantages and λ-returns of a rollout's steps, both [T, N] float32."""
    terminations = steps["terminations"]
    advantages = generalized_advantages(
        r_t=steps["rewards"],
        discount_t=np.where(terminations, np.float32(0), np.float32(gamma)),
        continues_t=going_on(steps),
        v_tm1=steps["values"],
        v_t=steps["next_values"],
        lambda_=gae_lambda,
    )
    return advantages, advantages + steps["values"]


def learning_batch(
    learner: Learner, rollout: Rollout, *, gamma: float, gae_lambda: float, plain: PlainActorCritic | None = None
) -> dict[str, Any]:
    """The rows of a rollout as tensors: `rows` (encoded observations) [B, …], `actions`, and [B] float32 `log_probs`,
    `values` (both of the weights that acted), `advantages` and `returns`. Of a model with memory they are in the order
    of sequences, which `rows` tells of. For the `plain` one they are arrays that are not to be written to."""
    steps = rollout.steps.plus(rewards=learner.rewards(rollout.steps["rewards"]))
    advantages, returns = advantages_and_returns(steps, gamma=gamma, gae_lambda=gae_lambda)
    learner.advantages = advantages
    kept = {name: rollout.steps[name] for name in ("actions", "log_probs", "values")}
    return rows_of(learner, rollout, Batch({**kept, "advantages": advantages, "returns": returns}, 2), plain=plain)


def normalized_advantages(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch, of tensors or arrays, with its advantages shifted and scaled to mean 0 and standard deviation 1; a
    single row as it is."""
    advantages = batch["advantages"]
    count = len(advantages)
    if count > 1 and isinstance(advantages, np.ndarray):
        advantages = advantages - np.float32(np.add.reduce(advantages) / count)
        advantages *= np.float32(1 / (math.sqrt(advantages.dot(advantages) / (count - 1)) + 1e-8))
    elif count > 1:
        deviation, mean = torch.std_mean(advantages)
        advantages = (advantages - mean).div_(deviation + 1e-8)
    return {**batch, "advantages": advantages}


def rows_of(
    learner: Learner, rollout: Rollout, columns: Batch, *, plain: PlainActorCritic | None = None
) -> dict[str, Any]:
    """Columns [T, N, …] of a rollout as tensors of rows [B, …], with `rows`, the encoded observations. Of a model with
    memory they are in the order of sequences, which `rows` tells of; steps that only reset an environment are none. As
    for `plain`, see `learning_batch`."""
    if rollout.memories is not None:
        return learner.sequences(rollout, columns)
    flat = columns.plus(observations=rollout.steps["observations"]).flat()
    if "resets" in rollout.steps:
        flat = flat.take(~rollout.steps["resets"].reshape(-1))
    observations, others = flat["observations"], flat.only(list(columns))
    if plain is not None:
        return {**others, "rows": plain.encode(observations)}
    return learner.tensors(others) | {"rows": learner.model.encode(observations)}


def learning_metrics(learner: Learner, batch: Mapping[str, Any], learning_rate: float) -> dict[str, float]:
    """Metrics that every update on a `learning_batch` has, under Stable-Baselines3's tags."""
    columns = batch["values"], batch["returns"]
    values, returns = (each if isinstance(each, np.ndarray) else each.cpu().numpy() for each in columns)
    deviation = learner.model.standard_deviation()
    return {
        **({} if deviation is None else {"train/std": deviation}),
        "train/explained_variance": explained_variance(values, returns),
        "train/learning_rate": learning_rate,
        "train/n_updates": learner.n_updates,
    }


def minibatch_metrics(history: Sequence[Mapping[str, Tensor | float]], last_epoch: int) -> dict[str, float]:
    """Metrics of all minibatches, each a scalar tensor or a number, as Stable-Baselines3 gives them: means, but the
    loss of the last one, and the approximate KL of the last epoch, which begins at `last_epoch` in `history`."""
    told = {name: _numbers([metrics[name] for metrics in history]) for name in history[0]}
    last = told["train/approx_kl"][last_epoch:]
    means = {name: math.fsum(values) / len(values) for name, values in told.items()}
    return {**means, "train/loss": told["train/loss"][-1], "train/approx_kl": math.fsum(last) / len(last)}


def _numbers(values: list[Any]) -> list[float]:
    # Of a GPU's tensors all at once: each by itself would wait for it.
    return torch.stack(values).tolist() if isinstance(values[0], torch.Tensor) else values
