"""PPO's clipped surrogate of a plain actor-critic, with its gradient written out (see `models.plain`).

The same function as `ppo_loss`, which says it in torch's operations for every model; a test holds both equal. This
module doesn't import torch (see `lazy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..data.tree import as_array

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.plain import KnownLoss, PlainActorCritic
    from .shards import Told


def clipped_surrogate(
    model: PlainActorCritic,
    minibatch: Mapping[str, Tensor | np.ndarray],
    *,
    clip_range: float,
    clip_range_vf: float | None,
    vf_coef: float,
    ent_coef: float,
) -> tuple[KnownLoss, Told]:
    """Loss and metrics as of `ppo_loss`, for a `minibatch` as it takes it."""
    given = {name: as_array(column) for name, column in minibatch.items()}
    advantages, count = given["advantages"], len(given["advantages"])
    outputs, values = model.pi.forward(given["rows"]), model.vf.forward(given["rows"])[:, 0]
    distribution = model.distribution(outputs, given["actions"])

    log_ratio = distribution.log_probs - given["log_probs"]
    ratio = np.exp(log_ratio)
    clipped_ratio = ratio.clip(1 - clip_range, 1 + clip_range)
    gain, clipped_gain = advantages * ratio, advantages * clipped_ratio
    policy_loss = -np.add.reduce(np.minimum(gain, clipped_gain)) / count
    # ∂ ratio / ∂ log π = ratio; nothing flows where the clipped one counts.
    of_log_probs = np.where(clipped_gain < gain, 0, gain) * np.float32(-1 / count)

    error = values - given["returns"]
    of_values = np.float32(2 * vf_coef / count)
    if clip_range_vf is not None:
        step = values - given["values"]
        clipped = step.clip(-clip_range_vf, clip_range_vf)
        error, of_values = given["values"] + clipped - given["returns"], of_values * (clipped == step)
    value_loss = error.dot(error) / count

    entropy_loss = -np.add.reduce(distribution.entropies) / count
    loss = policy_loss + vf_coef * value_loss + ent_coef * entropy_loss
    of_outputs, of_log_std = distribution.gradients(of_log_probs, -ent_coef / count)
    told = {
        "train/loss": float(loss),
        "train/policy_gradient_loss": float(policy_loss),
        "train/value_loss": float(value_loss),
        "train/entropy_loss": float(entropy_loss),
        "train/approx_kl": float(np.add.reduce(ratio - 1 - log_ratio) / count),
        "train/clip_fraction": np.count_nonzero(ratio != clipped_ratio) / count,
    }
    return model.loss(told["train/loss"], of_outputs, of_log_std, error * of_values), told
