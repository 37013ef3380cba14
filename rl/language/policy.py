"""A language model that answers: read from a run, or made new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ...envs import TextCodec, check_same_spaces, codec, derive_seed
from ...runtime import InputError
from ..elsewhere import TEXT_POLICY, attributes
from ..models.build import build_model
from ..models.saved_weights import SavedWeights
from ..models.spec import ModelSpec
from .asked import Asked, Said, conversation, room, texts_of
from .continuous import ContinuousDecoding
from .decoding import Decoding
from .sampling import Sampling
from .tokens import characters_of

PLACES = 32
"""Answers that are sampled side by side."""


class LanguagePolicy(SavedWeights):
    """Answers texts of `observation_space` with texts. `seed` decides initial weights, and what is sampled."""

    answers_texts = True
    names_elsewhere = attributes(TEXT_POLICY)

    def __init__(self, spec: ModelSpec, *, seed: int = 0, device: str = "cpu") -> None:
        self.model = build_model(spec, seed=seed, device=device)
        self.spec, self.version, self.env = spec, 0, None
        self.observation_space, self.action_space = spec.observation_space, spec.action_space
        self._seed, self._answered = derive_seed(seed, "answers of a policy"), 0

    def check_task(self, env: Any, name: str) -> None:
        """Refuse an environment that is not between texts, or whose texts have characters that the model has no tokens
        for: SpaceMismatchError, InputError. Its texts may be others than those of the training."""
        spaces = env.observation_space, env.action_space
        if not all(isinstance(codec(space), TextCodec) for space in spaces):
            check_same_spaces(self, env, name)
        try:
            self.model.tokens.encode(characters_of(*spaces))
        except InputError as error:
            raise InputError(f"environment {name!r}: {error}") from None

    def decoding(self, rows: int, sampling: Sampling) -> Decoding:
        """Episodes of so many rows, with the weights of now."""
        return Decoding(self.model, rows, sampling)

    def stream(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int | None = None,
        samples: int = 1,
        seed: int | None = None,
        **sampling: Any,
    ) -> Iterator[tuple[int, Said]]:
        """Answer prompts, and yield what is said as it comes: the number of the answer, `samples` to each prompt, those
        to the first prompt first, and a token with the text that can be told by now.

        Args:
            prompts: texts, any number; `PLACES` answers are sampled side by side, others follow as places become free.
            max_new_tokens: of an answer at most; None: up to the end of the context.
            samples: answers to each prompt.
            seed: with the number of an answer it decides the noise, so that the same answer comes again, here, and from
            `serve`; None: from the policy's own stream.
            sampling: `temperature`, `top_k`, `top_p`, `stop`, `alternatives`, as in `Asked`.

        Raises InputError for a prompt that has no room in the context, or no tokens, and for options that cannot be.
        """
        tokens, context = self.model.tokens, self.model.context
        asked, count = [], len(texts_of(prompts)) * samples
        base, self._answered = self._answered, self._answered + count
        for index in range(count):
            ids = conversation([tokens.encode(prompts[index // samples])])
            most = room(context, ids, max_new_tokens)
            stream, number = (self._seed, base + index) if seed is None else (seed, index)
            asked.append(Asked(prompt=ids, max_new_tokens=most, seed=stream, index=number, **sampling))
        return self._said(asked)

    def _said(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Said]]:
        decoding: ContinuousDecoding[int] = ContinuousDecoding(self.model, PLACES)
        for index, each in enumerate(asked):
            decoding.add(index, each)
        while decoding.busy:
            with torch.inference_mode():  # not while the caller works
                said = decoding.step()
            yield from said

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int | None = None, seed: int | None = None, **sampling: Any
    ) -> list[str]:
        """An answer to each prompt; arguments and errors are those of `stream`, whose texts these are."""
        answers = [""] * (len(prompts) * sampling.get("samples", 1))
        for index, said in self.stream(prompts, max_new_tokens=max_new_tokens, seed=seed, **sampling):
            answers[index] += said.text
        return answers

    def act(self, observations: Any, *, deterministic: bool = False) -> Any:
        """The answer to a text, or those to a list of them; `deterministic` takes the most likely token each time."""
        single = isinstance(observations, str)
        answers = self.generate(
            [observations] if single else list(observations), temperature=0.0 if deterministic else 1.0
        )
        return answers[0] if single else answers
