"""A language model that answers: read from a run, or made new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...envs import derive_seed, stream
from ..models.build import build_model
from ..models.saved_weights import SavedWeights
from ..models.spec import ModelSpec
from .decoding import Decoding
from .sampling import Sampling


class LanguagePolicy(SavedWeights):
    """Answers texts of `observation_space` with texts. `seed` decides initial weights, and what is sampled."""

    answers_texts = True

    def __init__(self, spec: ModelSpec, *, seed: int = 0, device: str = "cpu") -> None:
        self.model = build_model(spec, seed=seed, device=device)
        self.spec, self.version, self.env = spec, 0, None
        self.observation_space, self.action_space = spec.observation_space, spec.action_space
        self._seed, self._answered = derive_seed(seed, "answers of a policy"), 0

    def decoding(self, rows: int, sampling: Sampling) -> Decoding:
        """Episodes of so many rows, with the weights of now."""
        return Decoding(self.model, rows, sampling)

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int | None = None, seed: int | None = None, **sampling: Any
    ) -> list[str]:
        """An answer to each prompt; `sampling` are fields of `Sampling`. Default: up to the end of the context, from
        the policy's own stream. Raises ValueError for a prompt that has no room in the context, or no tokens."""
        tokens, most = self.model.tokens, max_new_tokens or self.model.context
        texts = [tokens.encode(prompt) for prompt in prompts]
        base, self._answered = self._answered, self._answered + len(prompts)
        chosen = (self._seed, base) if seed is None else (seed, 0)
        noise = np.stack([stream(chosen[0], "answer", chosen[1] + row).random(most) for row in range(len(prompts))])
        with torch.inference_mode():
            decoding = self.decoding(len(prompts), Sampling(**sampling))
            for prompt, ids in zip(prompts, texts, strict=True):
                decoding.check_prompt(prompt, ids)
            decoding.read(texts)
            given = torch.from_numpy(noise).to(decoding.tokens.device)
            said = decoding.answer(given, np.ones(len(prompts), np.bool_))
        return [tokens.decode(ids) for ids in said.ids]

    def act(self, observations: Any, *, deterministic: bool = False) -> Any:
        """The answer to a text, or those to a list of them; `deterministic` takes the most likely token each time."""
        single = isinstance(observations, str)
        answers = self.generate(
            [observations] if single else list(observations), temperature=0.0 if deterministic else 1.0
        )
        return answers[0] if single else answers
