"""The policy: from observations to actions, for rollouts, evaluation, serving and learning alike.

All parameters are views into one flat float32 tensor, all gradients into another, so that optimizer step, gradient
norm, broadcast and checkpoint each act on one array. Random choices come from noise that is given or drawn from a numpy
stream, never from torch's generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..envs import as_batch, check_supported, space_to_json, stream, to_env_actions
from ..runtime import in_plain_numbers
from .architecture import Architecture, initial_weights, parameter_layout
from .checkpoint import policy_files, read_policy, write_policy
from .distributions import Distribution, draw_noise, make_distribution
from .networks import Network


class Policy:
    """A stochastic policy with a value function, between two gymnasium spaces.

    Args:
        observation_space, action_space: what it takes and gives.
        policy_kwargs: as in `Architecture`.
        seed: decides the initial weights, and the actions that `act` draws.
        device: where it computes.

    Raises:
        InputError: spaces or `policy_kwargs` that are not supported.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        policy_kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        check_supported(observation_space, "observation")
        check_supported(action_space, "action")
        self.observation_space, self.action_space = observation_space, action_space
        self.policy_kwargs = in_plain_numbers(dict(policy_kwargs or {}))
        self.version = 0
        self.env: dict[str, Any] | None = None
        architecture = Architecture.from_policy_kwargs(policy_kwargs)
        self.layout = parameter_layout(observation_space, action_space, architecture)
        self.flat_parameters = torch.tensor(initial_weights(self.layout, architecture, seed), device=device)
        self.flat_gradients = torch.zeros_like(self.flat_parameters)
        self._network = Network(architecture, self._leaves())
        self._stream = stream(seed, "act")

    def _leaves(self) -> dict[str, Tensor]:
        """The parameters as autograd leaves: views into the flat tensor, their gradients into the flat gradient."""
        gradients = self.layout.views(self.flat_gradients)
        leaves = {}
        for name, view in self.layout.views(self.flat_parameters).items():
            leaves[name] = view.detach().requires_grad_()
            leaves[name].grad = gradients[name]
        return leaves

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.flat_parameters.device

    # ---- acting

    def act(
        self, observations: Any, *, deterministic: bool = False, noise_stream: np.random.Generator | None = None
    ) -> np.ndarray:
        """Actions for `env.step`: one for an observation of shape `space.shape`, [B, …] for a batch [B, …] of them.

        Args:
            observations: one, or a batch.
            deterministic: take the most probable action.
            noise_stream: what decides otherwise; default: a stream of the policy's own.

        Raises:
            ValueError: the observations have another shape (both are named), hold what is not finite or outside a
                discrete space, or no finite actions come of them.
        """
        rows, single = as_batch(self.observation_space, observations)
        with torch.inference_mode():
            outputs, _ = self._network(self.encode(rows))
            distribution = self.distribution(outputs)
            if deterministic:
                chosen = distribution.mode()
            else:
                noise = draw_noise(self.action_space, noise_stream or self._stream, (len(rows),))
                chosen = distribution.sample(torch.from_numpy(noise).to(self.device))
        self._check_finite(outputs.cpu().numpy(), chosen.cpu().numpy(), rows)
        actions = self.environment_actions(chosen.cpu().numpy())
        return actions[0] if single else actions

    def explore(self, observations: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One forward pass for a rollout: actions as the distribution gives them, head outputs [B, K] and values [B].

        `noise` [B, K] comes from `draw_noise`. `log_probs` later makes log-probabilities from the outputs of a whole
        rollout at once. Raises ValueError naming the row if outputs or actions are not finite.
        """
        with torch.inference_mode():
            outputs, values = self._network(self.encode(observations))
            actions = self.distribution(outputs).sample(torch.from_numpy(noise).to(self.device)).cpu().numpy()
            given = outputs.cpu().numpy()
            self._check_finite(given, actions, observations)
            return actions, given, values.cpu().numpy()

    def _check_finite(self, outputs: np.ndarray, actions: np.ndarray, observations: np.ndarray) -> None:
        """Raise ValueError if the head's outputs [B, K] or the actions [B, …] hold what is not finite."""
        for name, values in (("output", outputs), ("action", actions)):
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                spoiled = int((~torch.isfinite(self.flat_parameters)).sum())
                reason = (
                    f"{spoiled} of its {len(self.flat_parameters)} weights are not: load an earlier checkpoint"
                    if spoiled
                    else f"the observation has values up to {float(np.abs(observations[row]).max()):g}: scale it"
                )
                raise ValueError(f"the policy's {name} for row {row} is not finite ({values[row]}): {reason}")

    def environment_actions(self, actions: np.ndarray) -> np.ndarray:
        """What `env.step` takes, [B, *space.shape], for actions [B, …] as the distribution gives them."""
        return to_env_actions(self.action_space, actions.reshape(len(actions), *(self.action_space.shape or ())))

    def draw_noise(self, noise_stream: np.random.Generator, rows: tuple[int, ...]) -> np.ndarray:
        """float32 noise [*rows, K] for `explore`, from `noise_stream`."""
        return draw_noise(self.action_space, noise_stream, rows)

    def log_probs(self, outputs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """log π(actions) [B] from head outputs [B, K] as `explore` returned them."""
        with torch.inference_mode():
            distribution = self.distribution(torch.tensor(outputs, device=self.device))
            return distribution.log_prob(torch.tensor(actions, device=self.device)).cpu().numpy()

    def values(self, observations: np.ndarray) -> np.ndarray:
        """V(observations), [B] float32."""
        with torch.inference_mode():
            return self._network(self.encode(observations))[1].cpu().numpy()

    # ---- learning

    def evaluate_actions(self, rows: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, log-probabilities and entropies, each [B], of `actions` in encoded `rows`, with gradients."""
        outputs, values = self._network(rows)
        distribution = self.distribution(outputs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def distribution(self, outputs: Tensor) -> Distribution:
        """The distribution over actions that head outputs [B, K] describe."""
        return make_distribution(self.action_space, outputs, self._network.head.log_std)

    def encode(self, observations: np.ndarray) -> Tensor:
        """Observations [B, *shape] → the network's rows [B, row_size] float32, on the policy's device.

        Copies into memory that torch aligns: a product's bits may depend on the alignment of its operands.
        """
        given = torch.tensor(observations, device=self.device)
        space = self.observation_space
        if isinstance(space, spaces.Discrete):
            return torch.nn.functional.one_hot(given.long() - int(space.start), int(space.n)).float()
        if isinstance(space, spaces.MultiDiscrete):
            choices = (given.long() - torch.as_tensor(space.start, device=self.device)).reshape(len(given), -1)
            sizes = [int(n) for n in np.ravel(space.nvec)]
            return torch.cat([torch.nn.functional.one_hot(choices[:, i], n) for i, n in enumerate(sizes)], -1).float()
        rows = given.reshape(len(given), -1).float()
        is_image = space.dtype == np.uint8 and len(space.shape or ()) == 3
        return rows / 255 if is_image else rows

    def standard_deviation(self) -> float | None:
        """Mean standard deviation of Gaussian actions; None for other action spaces."""
        log_std = self._network.head.log_std
        return None if log_std is None else float(log_std.detach().exp().mean())

    # ---- weights

    def get_weights(self) -> np.ndarray:
        """All parameters as one flat float32 array: a copy, in the order of `layout`."""
        return self.flat_parameters.detach().cpu().numpy().copy()

    def set_weights(self, flat: np.ndarray, version: int) -> None:
        """Take over flat weights as `get_weights` gives them; ValueError if their shape is another."""
        self.layout.views(flat)
        self.flat_parameters.copy_(torch.tensor(flat))
        self.version = version

    def weights_sha256(self) -> str:
        """SHA-256 over the parameters as little-endian float32, in the order of their names."""
        return self.layout.sha256(self.get_weights())

    def save(self, folder: str | Path) -> None:
        """Write policy.json, policy.safetensors and SHA256SUMS into `folder`, which is made if needed.

        Raises:
            InputError: a run is there.
        """
        metadata = {
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "policy_kwargs": self.policy_kwargs,
            "env": self.env,
            "version": self.version,
        }
        write_policy(Path(folder), policy_files(metadata, self.layout, self.get_weights()))

    @staticmethod
    def load(folder: str | Path, *, device: str = "cpu") -> Policy:
        """Read a policy from a policy folder, a checkpoint, or a run (its newest checkpoint).

        Raises:
            InputError: there is none, or it is damaged.
        """
        saved = read_policy(folder)
        policy = Policy(
            saved.observation_space, saved.action_space, policy_kwargs=saved.metadata["policy_kwargs"], device=device
        )
        policy.set_weights(saved.weights, int(saved.metadata["version"]))
        policy.env = saved.metadata.get("env")
        return policy
