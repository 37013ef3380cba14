"""The learner: an actor that turns trajectories into the next weights, on a GPU if there is one.

    update([trajectories], [weights, optimizer state], …) → (next weights, next optimizer state, metrics)

Learning is functional too: the arguments decide the result, the live policy and optimizer are a cache. A learner that
was killed is restarted, gets the call again and continues with the same bits; and the driver always holds a complete,
consistent state of the last iteration.

This module doesn't import torch (see `lazy`): the driver imports it to name the class.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from ..envs import stream
from ..runtime import InputError, ObjectRef, get, method
from .divergence import divergence
from .lazy import load
from .settings import RunSettings
from .threads import limit_threads, limit_torch_threads
from .trajectory import Trajectory

if TYPE_CHECKING:
    from torch import Tensor

    from .optimizer import FlatAdam
    from .policy import Policy

Update = Callable[["Learner", Trajectory, Any, float], dict[str, float]]
"""What an algorithm does with the trajectories of one iteration: (learner, trajectory, config, remaining progress) →
metrics."""


_MAY_BE_UNDEFINED = {"train/explained_variance"}
"""Metrics that need not exist: all returns of an iteration may be equal."""


class Learner:
    """Actor class. `update` is the algorithm's, a module-level function; `config` is its hyperparameters, `settings`
    the run's.

    The algorithm's `update` finds here: `policy`, `optimizer`, `epochs` (finished passes over rollouts) and
    `minibatches`.
    """

    def __init__(
        self,
        update: Update,
        config: Any,
        settings: RunSettings,
        observation_space: spaces.Space,
        action_space: spaces.Space,
    ) -> None:
        limit_threads(settings.threads)
        self._update, self._config, self._settings = update, config, settings
        self.policy: Policy = load("Policy")(
            observation_space,
            action_space,
            policy_kwargs=settings.policy_kwargs,
            seed=settings.seed,
            device=_resolve_device(settings.device),
        )
        self.optimizer: FlatAdam = load("FlatAdam")(self.policy.flat_parameters, self.policy.flat_gradients)
        self.epochs = 0
        self._iteration = 0
        self._batch: Mapping[str, Tensor] = {}

    @method(num_returns=2)
    def initial_state(self) -> tuple[np.ndarray, dict[str, Any]]:
        """Flat weights and optimizer state before the first update."""
        return self.policy.get_weights(), self._optimizer_state()

    def device(self) -> str:
        """The device that "auto" resolved to."""
        return str(self.policy.device)

    @method(num_returns=3)
    def update(
        self, trajectories: Sequence[ObjectRef], state: Sequence[ObjectRef], iteration: int, remaining_progress: float
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, float]]:
        """Learn from the trajectories of all groups, in group order, collected in iteration `iteration`.

        `state` holds references to the weights and optimizer state at the start of that iteration; they are fetched
        only if this learner doesn't hold them live. Returns the next weights, the next optimizer state, and metrics
        under Stable-Baselines3's tags.
        """
        limit_torch_threads(self._settings.threads)
        if self._iteration != iteration:
            weights, optimizer_state = get(list(state))
            self.policy.set_weights(weights, version=iteration)
            self.optimizer.set_state(optimizer_state["moments"], optimizer_state["steps"])
            self.epochs = optimizer_state["epochs"]
        self._iteration = -1  # not live while in between two iterations
        waiting = time.perf_counter()
        trajectory = Trajectory.concatenate(get(list(trajectories)))
        started = time.perf_counter()
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told as a whole, see below
            metrics = self._update(self, trajectory, self._config, remaining_progress)
        deviation = self.policy.standard_deviation()
        if deviation is not None:
            metrics["train/std"] = deviation
        weights, optimizer_state = self.policy.get_weights(), self._optimizer_state()
        self._check_finite(iteration + 1, trajectory, weights, optimizer_state["moments"], metrics)
        self._iteration = iteration + 1
        self.policy.version = iteration + 1
        metrics["time/update_seconds"] = time.perf_counter() - started
        metrics["time/learner_wait_seconds"] = started - waiting
        return weights, optimizer_state, {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _check_finite(
        self,
        iteration: int,
        trajectory: Trajectory,
        weights: np.ndarray,
        moments: np.ndarray,
        metrics: Mapping[str, float],
    ) -> None:
        """Raise TrainingDivergedError if something is not finite: what is would not be updated any more, unnoticed."""
        losses, gradients = self.optimizer.take_sums()
        batch, self._batch = self._batch, {}
        advantages = batch["advantages"].cpu().numpy() if "advantages" in batch else None
        stages = {
            "a reward": trajectory.rewards,
            **({} if advantages is None else {"an advantage": advantages}),
            "the loss": losses,
            "the gradient": gradients,
            "a moment of the optimizer": moments,
            "a weight": weights,
            **{f"the metric {name}": value for name, value in metrics.items() if name not in _MAY_BE_UNDEFINED},
        }
        error = divergence(iteration, stages, trajectory.rewards, advantages)
        if error is not None:
            raise error

    def _optimizer_state(self) -> dict[str, Any]:
        return {"moments": self.optimizer.get_moments(), "steps": self.optimizer.steps, "epochs": self.epochs}

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Arrays as tensors on the policy's device."""
        import torch

        return {name: torch.from_numpy(array).to(self.policy.device) for name, array in arrays.items()}

    def minibatches(self, batch: Mapping[str, Tensor], size: int, epoch: int) -> Iterator[dict[str, Tensor]]:
        """The rows of `batch` in random order, `size` at a time (the last may be smaller).

        The order comes from the stream (seed, "minibatches", iteration, epoch). One gather per field and epoch;
        minibatches are slices of it.
        """
        rows = len(next(iter(batch.values())))
        order = stream(self._settings.seed, "minibatches", self.policy.version, epoch).permutation(rows)
        indices = self.tensors({"order": order})["order"]
        self._batch = batch
        shuffled = {name: tensor.index_select(0, indices) for name, tensor in batch.items()}
        for start in range(0, rows, size):
            yield {name: tensor[start : start + size] for name, tensor in shuffled.items()}


def _resolve_device(device: str) -> str:
    """The device to compute on: "auto" is CUDA if there is a GPU; InputError if it is unknown or missing."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        if why.startswith("Expected one of"):  # torch names two dozen kinds of devices
            why = "torch knows no such device; a GPU is 'cuda' or 'cuda:N'"
        raise InputError(f"device is {device!r}, which cannot be used here: {why}. Use 'auto' or 'cpu'") from None
    return device
