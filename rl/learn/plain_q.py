"""Losses of DQN and SAC on plain networks, with their gradients written out (see `models.plain_q`).

The same functions as the algorithms say in torch's operations for every model; a test holds both equal. This module
doesn't import torch (see `lazy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.plain import KnownLoss
    from ..models.plain_q import PlainActorQ, PlainGaussianActorQ
    from ..models.q_network import QNetwork


def arrays_of(minibatch: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Rows of a minibatch as arrays: the tensors' own memory."""
    return {name: column.numpy() for name, column in minibatch.items()}


def plain_td_loss(
    model: QNetwork, target: QNetwork, rows: Mapping[str, np.ndarray], config: Any
) -> tuple[KnownLoss, np.ndarray, np.ndarray]:
    """As `dqn_loss`, in a fourth of its time: Huber loss, temporal-difference errors [B], values [B] of the actions
    taken; `config` has `double_q`. Both networks must be plain."""
    own, late = model.plain, target.plain
    assert own is not None
    assert late is not None
    count, weights = len(rows["rewards"]), rows["weights"]
    next_q = late.q.forward(rows["next_observations"])
    width = next_q.shape[1]
    first = np.arange(0, count * width, width)  # places in a flat array: half of the time of pairs of indices
    chooser = own.q.forward(rows["next_observations"]) if config.double_q else next_q
    y = rows["rewards"] + rows["discounts"] * next_q.take(first + chooser.argmax(-1))
    values, places = own.q.forward(rows["observations"]), first + rows["actions"]
    q = values.take(places)
    errors = y - q
    size = np.abs(errors)
    inner = np.minimum(size, 1)
    # ½ u² up to 1, |u| − ½ beyond; its derivative is u up to 1, the sign beyond.
    loss = float((weights * inner).dot(size - 0.5 * inner)) / count

    def write(factor: float) -> None:
        of_values = np.zeros(values.shape, np.float32)
        of_values.reshape(-1)[places] = weights * np.copysign(inner, errors) * (-factor / count)
        own.q.backward(of_values)

    return own.loss_of(loss, write), errors, q


def soft_critic_loss(
    model: PlainGaussianActorQ, target: PlainActorQ, minibatch: Mapping[str, Tensor], alpha: Tensor, noise: Tensor
) -> KnownLoss:
    """As SAC's `critic_loss`."""
    rows, scale = arrays_of(minibatch), alpha.numpy()
    seen = rows["next_observations"]
    drawn = model.draw(seen, noise.numpy())
    value = target.values(seen, drawn.actions).min(0)
    y = rows["rewards"] + rows["discounts"] * (value - scale * drawn.log_probs)
    errors = model.values(rows["observations"], rows["actions"]) - y

    def write(factor: float) -> None:
        of_values = errors * np.float32(factor / len(y))
        for critic, own in zip(model.critics, of_values, strict=True):
            critic.backward(own[:, np.newaxis])

    return model.loss_of(0.5 * float(np.square(errors).mean(-1).sum()), write)


def soft_actor_loss(
    model: PlainGaussianActorQ, minibatch: Mapping[str, Tensor], alpha: Tensor
) -> tuple[KnownLoss, Tensor]:
    """As SAC's `actor_loss`."""
    rows, scale = arrays_of(minibatch), float(alpha)
    seen, noise = rows["observations"], rows["noise"]
    drawn = model.draw(seen, noise)
    values = model.values(seen, drawn.actions)
    loss = float((np.float32(scale) * drawn.log_probs - values.min(0)).mean())

    def write(factor: float) -> None:
        share = factor / len(seen)
        of_actions = model.action_gradients(values.argmin(0), noise.shape[1]) * np.float32(-share)
        model.actor.backward(drawn.gradients(of_actions, scale * share))

    return model.loss_of(loss, write), torch.from_numpy(drawn.log_probs)
