"""What actor-learners share: rollouts that say what acted, and V-trace, which corrects for it.

Espeholt et al., 2018, arXiv 1802.01561. Values are those of the weights that learn; at a truncation, and after the last
step of a rollout, that of the true observation then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ...envs import codec
from ..clock import Clock
from ..data.batch import Batch, Column
from ..data.returns import explained_variance, vtrace
from ..data.rollout import Rollout, going_on
from ..data.tree import Tree
from ..declaration import Acted
from ..lazy import torch
from ..models.spec import ModelSpec
from ..on_policy import fill_log_probs, rows_of
from .algorithm import AsynchronousAlgorithm, AsynchronousConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ..learn.learner import Learner
    from ..models.actor_critic import ActorCritic
    from ..models.rows import Rows


Config = TypeVar("Config", bound=AsynchronousConfig)


class ActorLearnerAlgorithm(AsynchronousAlgorithm[Config], Generic[Config]):
    """Rollouts of `config.n_steps` steps, with the records `log_probs`, log π(action) of the weights that acted,
    float32; and `versions`, the updates that these had seen, int64; both [T, N]."""

    shards_gradients = True

    def check(self) -> None:
        """Raise InputError on settings with which no update could ever be made."""
        super().check()
        wanted, queue = self.config.rollouts_per_update, self.config.queue_size
        self.require(
            queue is None or queue >= wanted,
            "queue_size",
            queue,
            f"at least rollouts_per_update = {wanted}: else there are never enough for an update",
        )

    @staticmethod
    def rollout_steps(config: Any) -> int:
        """Steps per environment and rollout."""
        return int(config.n_steps)

    @staticmethod
    def records(spec: ModelSpec) -> dict[str, Tree]:
        """`outputs` are what describes the distributions: log-probabilities of a whole rollout are made from them."""
        outputs = Column((codec(spec.action_space).row_size,), scratch=True)
        return {"log_probs": Column(), "versions": Column(dtype=np.int64), "outputs": outputs}

    @staticmethod
    def explore(model: ActorCritic, rows: Rows, noise: Tensor, config: Any, clock: Clock) -> Acted:
        """Draw from the policy."""
        outputs = model.outputs(rows)
        return Acted(model.choose(outputs, noise), {"outputs": outputs})

    @staticmethod
    def finish(model: ActorCritic, rollout: Rollout, config: Any) -> None:
        """Fill `log_probs` and `versions`."""
        fill_log_probs(model, rollout)
        rollout.steps["versions"][:] = rollout.version


def acted_batch(learner: Learner, rollout: Rollout) -> dict[str, Tensor]:
    """The steps of rollouts as tensors: `rows` (encoded observations) [B, …], `actions`, `log_probs` [B] float32 of the
    weights that acted, and `index` [B] int64, where t · N + i stands for step t of environment i."""
    steps = rollout.steps
    index = np.arange(steps.rows).reshape(rollout.shape)
    columns = Batch({"actions": steps["actions"], "log_probs": steps["log_probs"], "index": index}, 2)
    return rows_of(learner, rollout, columns)


def corrected(
    learner: Learner,
    rollout: Rollout,
    batch: dict[str, Tensor],
    *,
    values: Tensor,
    log_probs: Tensor,
    critic: ActorCritic,
    gamma: float,
    rho_bar: float,
    c_bar: float,
    lambda_: float,
) -> dict[str, Tensor]:
    """V-trace `targets` and `advantages` [B] float32 of the rows of an `acted_batch`; no gradient flows through them.

    `values` and `log_probs` [B] are those of the policy that is evaluated, by `critic`, which gives the values after
    the last steps, too.
    """
    steps, index = rollout.steps, batch["index"].cpu().numpy()
    v_tm1, log_rhos = np.zeros((2, steps.rows), np.float32)  # what is no row is no transition: nothing reaches it
    v_tm1[index] = values.detach().cpu().numpy()
    log_rhos[index] = (log_probs.detach() - batch["log_probs"]).cpu().numpy()
    v_tm1 = v_tm1.reshape(rollout.shape)
    v_t = np.zeros_like(v_tm1)
    v_t[:-1] = v_tm1[1:]
    v_t.reshape(-1)[rollout.finals["rows"]] = _final_values(learner, critic, rollout.finals)
    terminations = steps["terminations"]
    targets, advantages = vtrace(
        r_t=learner.rewards(steps["rewards"]),
        discount_t=np.where(terminations, np.float32(0), np.float32(gamma)),
        continues_t=going_on(steps),
        v_tm1=v_tm1,
        v_t=v_t,
        log_rhos=log_rhos.reshape(rollout.shape),
        rho_bar=rho_bar,
        c_bar=c_bar,
        lambda_=lambda_,
    )
    learner.advantages = advantages
    return learner.tensors({"targets": targets.reshape(-1)[index], "advantages": advantages.reshape(-1)[index]})


def _final_values(learner: Learner, critic: ActorCritic, finals: Batch) -> np.ndarray:
    with torch.no_grad():
        memory = None if critic.memory is None else learner.tensors({"memory": finals["memory"]})["memory"]
        rows, _ = critic.recall(critic.encode(finals["observations"]), memory)
        return critic.values(rows).cpu().numpy()


def actor_learner_metrics(
    learner: Learner, rollout: Rollout, told: Mapping[str, Tensor], *, max_lag: int
) -> dict[str, float]:
    """Metrics of an update: the numbers that its loss has `told`, and those that every one on an `acted_batch` has, of
    whose rows the loss tells `values` and `targets` [B].

    `lag/N`, N = 0 … `max_lag`: part of the environments whose rollout was made by weights N versions before those that
    learn from it.
    """
    lags = learner.iteration - rollout.steps["versions"][0]
    deviation = learner.model.standard_deviation()
    return {
        **{name: float(value) for name, value in told.items() if value.dim() == 0},
        **({} if deviation is None else {"train/std": deviation}),
        **{f"lag/{lag}": float(np.mean(lags == lag)) for lag in range(max_lag + 1)},
        "train/lag_mean": float(lags.mean()),
        "train/lag_max": int(lags.max()),
        "train/explained_variance": explained_variance(told["values"].cpu().numpy(), told["targets"].cpu().numpy()),
        "train/n_updates": learner.n_updates,
    }
