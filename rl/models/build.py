"""Building a model from its spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...envs import derive_seed, own_generators
from ..language.transformer import LanguageModel
from ..language.transformers_model import PretrainedModel
from .actor import Actor
from .actor_critic import ActorCritic
from .actor_q import CategoricalActorQ, DeterministicActorQ, GaussianActorQ
from .actor_qv import CategoricalActorQV, GaussianActorQV
from .central_actor_critic import CentralActorCritic
from .flat_module import FlatModule
from .q_network import QNetwork, QuantileQNetwork
from .spec import ModelSpec


def _language_model(spec: ModelSpec) -> FlatModule:
    return PretrainedModel(spec) if spec.architecture.transformers else LanguageModel(spec)


MODELS: dict[str, Callable[[ModelSpec], FlatModule]] = {
    "actor_critic": ActorCritic,
    "central_actor_critic": CentralActorCritic,
    "actor": Actor,
    "q_network": QNetwork,
    "quantile_q_network": QuantileQNetwork,
    "gaussian_actor_q": GaussianActorQ,
    "categorical_actor_q": CategoricalActorQ,
    "deterministic_actor_q": DeterministicActorQ,
    "gaussian_actor_qv": GaussianActorQV,
    "categorical_actor_qv": CategoricalActorQV,
    "language_model": _language_model,
}


def build_model(spec: ModelSpec, *, seed: int = 0, device: str | torch.device = "cpu") -> Any:
    """The model of `spec` with initial weights that `seed` alone decides; the process's generators, from which a module
    of the user's own may draw, are as before afterwards, as is its default dtype."""
    with own_generators(derive_seed(seed, "init", 0)), torch.random.fork_rng(devices=[]), _float32():
        torch.default_generator.manual_seed(derive_seed(seed, "init"))
        model = MODELS[spec.kind](spec)
    model.flatten(device)
    return model


@contextmanager
def _float32() -> Iterator[None]:
    """Let tensors whose dtype nobody tells be float32, as the flat weights are, whatever the program has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
