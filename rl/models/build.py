"""Building a model from its spec."""

from __future__ import annotations

import torch

from ...envs import derive_seed
from .actor_critic import ActorCritic
from .actor_q import CategoricalActorQ, DeterministicActorQ, GaussianActorQ
from .model import Model
from .q_network import QNetwork
from .spec import ModelSpec

MODELS: dict[str, type[Model]] = {
    "actor_critic": ActorCritic,
    "q_network": QNetwork,
    "gaussian_actor_q": GaussianActorQ,
    "categorical_actor_q": CategoricalActorQ,
    "deterministic_actor_q": DeterministicActorQ,
}


def build_model(spec: ModelSpec, *, seed: int = 0, device: str | torch.device = "cpu") -> Model:
    """The model of `spec` with initial weights that `seed` alone decides; torch's generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "init"))
        model = MODELS[spec.kind](spec)
    model.flatten(device)
    return model
