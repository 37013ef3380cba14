"""Q-networks of plain vectors, and actors with critics, in numpy (see `plain`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from .distributions import HALF_LOG_2PI, LOG_STD_MAX, LOG_STD_MIN
from .plain import PlainModel, aligned


class PlainQNetwork(PlainModel):
    """Of a `QNetwork` that is one MLP."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.policy = self.q = self.mlp("q")

    @staticmethod
    def choose(outputs: np.ndarray, noise: np.ndarray, epsilon: float) -> np.ndarray:
        """As the model's, with noise."""
        return np.where(noise[:, 0] < epsilon, noise[:, 1:].argmax(-1), outputs.argmax(-1))

    def explore(self, rows: np.ndarray, noise: np.ndarray, epsilon: float) -> np.ndarray:
        """As the model's, without values where no row asks for them."""
        if np.count_nonzero(noise[:, 0] < epsilon) == len(noise):
            return noise[:, 1:].argmax(-1)
        return self.choose(self.outputs(rows), noise, epsilon)


class PlainActorQ(PlainModel):
    """Of a `ContinuousActorQ` without encoders."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.policy = self.actor = self.mlp("actor")
        self.critics = [self.mlp(f"critics.{index}") for index in range(len(model.critics))]
        self._both: dict[int, np.ndarray] = {}

    def values(self, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """As the model's, [n_critics, B]; gradients then are of these rows."""
        both = self._beside(rows, actions)
        return np.stack([critic.forward(both)[:, 0] for critic in self.critics])

    def action_gradients(self, critics: np.ndarray, width: int) -> np.ndarray:
        """∂ Q_i / ∂ actions [B, K = `width`] at the rows of the last values, i of each row in `critics` [B]."""
        found = np.empty((len(critics), width), np.float32)
        for index, critic in enumerate(self.critics):
            chosen = np.flatnonzero(critics == index)
            if len(chosen):
                found[chosen] = critic.input_gradient(chosen, -width)
        return found

    @staticmethod
    def uniform(rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """As the model's."""
        return torch.erf(torch.from_numpy(noise) / 2**0.5).numpy()

    def _beside(self, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
        both = self._both.get(len(rows))
        if both is None:
            both = self._both[len(rows)] = aligned(len(rows), rows.shape[1] + actions.shape[1])
        both[:, : rows.shape[1]], both[:, rows.shape[1] :] = rows, actions
        return both


class PlainGaussianActorQ(PlainActorQ):
    """Of SAC's."""

    @staticmethod
    def choose(outputs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """As the model's, drawn."""
        width = noise.shape[1]
        return np.tanh(outputs[:, :width] + np.exp(_within_bounds(outputs[:, width:])) * noise)

    def draw(self, rows: np.ndarray, noise: np.ndarray) -> PlainSquashedGaussian:
        """Actions in these rows, with what a loss asks of them."""
        return PlainSquashedGaussian(self.actor.forward(rows), noise)


class PlainDeterministicActorQ(PlainActorQ):
    """Of TD3's."""

    @staticmethod
    def choose(outputs: np.ndarray, noise: np.ndarray | None, scale: float = 0.0) -> np.ndarray:
        """As the model's."""
        actions = np.tanh(outputs)
        return actions if noise is None or not scale else np.clip(actions + np.float32(scale) * noise, -1, 1)


class PlainSquashedGaussian:
    """As `SquashedGaussian`: actions [B, K] drawn with noise [B, K] from outputs [B, 2 K], means and log σ."""

    def __init__(self, outputs: np.ndarray, noise: np.ndarray) -> None:
        width = noise.shape[1]
        given = outputs[:, width:]
        log_std = _within_bounds(given)
        self._inside, self._spread = given == log_std, np.exp(log_std) * noise
        before = outputs[:, :width] + self._spread
        self.actions = np.tanh(before)
        normal = -0.5 * np.square(noise) - log_std - np.float32(HALF_LOG_2PI)
        squash = 2 * (np.float32(math.log(2)) - before - np.logaddexp(0, -2 * before))
        self.log_probs: np.ndarray = (normal - squash).sum(-1)
        """log π of them, [B]."""

    def gradients(self, of_actions: np.ndarray, of_log_prob: float) -> np.ndarray:
        """That of the outputs, for those of the actions [B, K], and of each log-probability.

        With u = mean + σ · noise: ∂ a / ∂ u = 1 − a²,  ∂ log π / ∂ u = 2 a,  ∂ log π / ∂ log σ = 2 a σ · noise − 1.
        """
        scale = np.float32(of_log_prob)
        of_mean = of_actions * (1 - np.square(self.actions)) + 2 * scale * self.actions
        of_log_std = (of_mean * self._spread - scale) * self._inside
        return np.concatenate([of_mean, of_log_std], 1)


def _within_bounds(log_std: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(log_std, LOG_STD_MIN), LOG_STD_MAX)  # of few rows np.clip takes 1.7 times as long
