"""What is asked of a language model, and what it says, token by token; free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...envs import stream
from ...runtime import InputError
from ..settings import Bounds
from .tokens import ANSWER, BEGIN, END

LENGTH, STOP = "length", "stop"
"""Why an answer has ended: at the limit of its tokens, or where the model, or a stop text, says so."""

_BOUNDS = {
    "max_new_tokens": Bounds(whole=True, at_least=1),
    "seed": Bounds(whole=True, at_least=0),
    "temperature": Bounds(at_least=0),
    "top_k": Bounds(whole=True, at_least=0),
    "top_p": Bounds(above=0, at_most=1),
    "alternatives": Bounds(whole=True, at_least=0),
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One answer that is wanted. Weights and these fields decide it, whoever else is answered at the same time.

    Raises InputError for a value that cannot be.
    """

    prompt: tuple[int, ...]
    """Ids that come before the answer, as `conversation` makes them."""
    max_new_tokens: int
    """Tokens of the answer at most, the sign that it ends included."""
    seed: int = 0
    index: int = 0
    """Noise is drawn from the stream (seed, "answer", index): several answers to a prompt differ in their index."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token, as does anything below 1e-4."""
    top_k: int = 0
    """Only this many of the most likely tokens; 0: all."""
    top_p: float = 1.0
    """Only the most likely tokens that together are as likely as this, the one that reaches it included; 1: all."""
    stop: tuple[str, ...] = ()
    """The answer ends before each of these texts."""
    alternatives: int = 0
    """The most likely tokens that are told at each place, beside the one that was chosen."""

    def __post_init__(self) -> None:
        for name, bounds in _BOUNDS.items():
            object.__setattr__(self, name, bounds.read(name, getattr(self, name)))
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if not all(isinstance(text, str) and text for text in stop):
            raise InputError(f"stop is {self.stop!r}, but must be a text or some texts that are not empty")
        object.__setattr__(self, "stop", stop)

    def noise(self, tokens: int) -> np.ndarray:
        """[tokens] float64 in [0, 1), one number for each token."""
        return stream(self.seed, "answer", self.index).random(tokens)


@dataclass(frozen=True, slots=True)
class Said:
    """What a step of the model adds to an answer."""

    token: int
    """Its id; END where the model says that the answer ends."""
    log_prob: float
    """Of the token under the model's softmax, whatever temperature, top-k and top-p are."""
    text: str
    """What can be told by now: half of a character, and what may be the beginning of a stop text, come later."""
    finish: str | None = None
    """None: the answer goes on."""
    alternatives: tuple[tuple[int, float], ...] = ()
    """The most likely tokens with their log-probabilities, most likely first."""


def texts_of(prompts: Sequence[str]) -> Sequence[str]:
    """`prompts`; InputError for a single text, which would be taken for as many prompts as it has characters."""
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise InputError(f"prompts is {prompts!r:.80}, but must be a list of texts, such as ['abc']")
    return prompts


def conversation(turns: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The ids of a conversation, prompt, answer, prompt … prompt, as training has them: what comes next is the model's
    answer."""
    ids = [BEGIN]
    for number, turn in enumerate(turns):
        ids += [*turn, END if number % 2 else ANSWER]
    return tuple(ids)


def room(context: int, prompt: Sequence[int], max_new_tokens: int | None) -> int:
    """How many tokens an answer to `prompt` may have: at most `max_new_tokens`, and what is left of the context.

    Raises InputError if there is no room for any.
    """
    left = context - len(prompt)
    if left < 1:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, which leave no room for an answer in the context of {context}: "
            "shorten it, or train with a larger policy_kwargs['context']"
        )
    return left if max_new_tokens is None else min(left, max_new_tokens)
